"""Every state of one InferenceModel with the moment at which it was seen."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from demo.cluster import Cluster, Object


class Timeline:
    """What a watch brought so far; times are `time.monotonic()`'s."""

    def __init__(self) -> None:
        self._seen: list[tuple[float, Object]] = []

    def add(self, model: Object) -> None:
        """Note a state that was seen just now."""
        self._seen.append((time.monotonic(), model))

    def first(self, holds: Callable[[Object], bool], *, after: float = 0.0) -> float | None:
        """Return when something was first seen to hold; None: it was not."""
        return next((at for at, model in list(self._seen) if at >= after and holds(model)), None)


@contextmanager
def watching(cluster: Cluster, namespace: str, model: str) -> Iterator[Timeline]:
    """Watch a model while the context is open."""
    timeline, ended = Timeline(), threading.Event()

    def watch() -> None:
        for state in cluster.watch_model(namespace, model, ended=ended):
            timeline.add(state)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield timeline
    finally:
        ended.set()
