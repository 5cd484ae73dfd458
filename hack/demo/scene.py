"""What both halves of the demo need: the cluster, the images, a story to tell, and how long to wait."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console

from demo import report
from demo.cluster import Cluster, Snapshot
from demo.errors import DemoError
from demo.installation import Images
from demo.story import Story, images_not_found

NAMESPACE = "demo"
SERVER = "default"
POLL_SECONDS = 0.5
IMAGE_SECONDS = 60.0
"""So long a registry may take to answer at all."""


@dataclass(frozen=True)
class Scene:
    """Where the demo plays."""

    console: Console
    cluster: Cluster
    story: Story
    images: Images
    forward: bool
    """Whether Triton is reached by kubectl's port forwarding."""
    timeout: float
    """Seconds that one wait may take."""

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Say what is done now, and how long it took."""
        began = time.monotonic()
        self.console.print(f"» {name}", style="bold", markup=False)
        yield
        self.console.print(f"  done in {time.monotonic() - began:.1f} s", style="dim")

    def follow(self, reached: Callable[[Snapshot], bool], *, goal: str) -> Snapshot:
        """Tell what happens until it is reached.

        Raises:
            DemoError: it is not in time, or can't be.
        """
        began = time.monotonic()
        while True:
            snapshot = self.cluster.snapshot(NAMESPACE)
            self.story.tell(snapshot)
            if reached(snapshot):
                return snapshot
            wrong = self._what_is_wrong(snapshot, goal, waited=time.monotonic() - began)
            if wrong:
                report.diagnose(self.console, self.cluster, NAMESPACE)
                raise DemoError(f"{wrong}; conditions, pods and the operator's log stand above")
            time.sleep(POLL_SECONDS)

    def _what_is_wrong(self, snapshot: Snapshot, goal: str, *, waited: float) -> str:
        """Say why waiting on makes no sense, or nothing."""
        without_image = list(images_not_found(snapshot))
        if without_image and waited > IMAGE_SECONDS:
            return f"pod {without_image[0]}, which no registry has: run `make images`"
        return f"{goal}: not after {self.timeout:.0f} s" if waited > self.timeout else ""
