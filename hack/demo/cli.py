"""The command line, and the demo as a list of steps."""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from demo import installation, report
from demo.cluster import Cluster, Snapshot
from demo.endpoints import endpoints
from demo.errors import DemoError
from demo.milestones import Milestones, Target, job_steps
from demo.requests import Outcome, ask_all
from demo.sample import Sample, light_resnet50
from demo.story import Story, images_not_found

POLL_SECONDS = 0.5
IMAGE_SECONDS = 60.0
"""So long a registry may take to answer at all."""
WIDTH = 120
"""Of the output where there is no terminal, as in a log."""
TARGET = Target(namespace="demo", model="resnet50", server="default", version=1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    options = _parser().parse_args(arguments)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    try:
        if options.remove:
            installation.remove(TARGET.namespace)
            return 0
        return _demonstrate(console, options)
    except DemoError as error:
        console.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("interrupted; what was installed stays (`make demo-down` removes it)")
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hack/demo", description="From an ONNX model to answers.")
    parser.add_argument("--images", type=Path, required=True, help="file that `make images` wrote")
    parser.add_argument(
        "--cluster",
        choices=("local", "current"),
        default="local",
        help="current: reach Triton by kubectl's port forwarding (default: %(default)s)",
    )
    parser.add_argument("--timeout", type=float, default=600, help="seconds to wait for Ready (default: 600)")
    parser.add_argument("--remove", action="store_true", help="remove what the demo installed, and end")
    return parser


def _demonstrate(console: Console, options: argparse.Namespace) -> int:
    images = installation.read_images(options.images)
    sample = light_resnet50()
    with _step(console, f"helm upgrade --install, namespace {installation.OPERATOR_NAMESPACE}"):
        installation.install_operator(images)
    cluster = Cluster()
    before = cluster.snapshot(TARGET.namespace)
    began = time.monotonic()
    with _step(console, f"kubectl apply -k examples/quickstart, namespace {TARGET.namespace}"):
        installation.apply_quickstart(images, TARGET.namespace)
    milestones = Milestones(TARGET, began)
    story = Story(console, began)
    story.forget(before)
    snapshot = _follow(console, cluster, milestones, story, timeout=options.timeout)
    with (
        _step(console, "requests with tritonclient over HTTP and gRPC"),
        endpoints(cluster, snapshot, TARGET, forward=options.cluster == "current") as reachable,
    ):
        outcomes = ask_all(reachable, TARGET, sample)
    _print_tables(console, milestones, snapshot, outcomes)
    _judge(console, outcomes, sample)
    report.look_further(console, TARGET, local=options.cluster == "local")
    return 0


def _follow(
    console: Console, cluster: Cluster, milestones: Milestones, story: Story, *, timeout: float
) -> Snapshot:
    """Tell what happens until all stages are reached."""
    began = time.monotonic()
    while True:
        snapshot = cluster.snapshot(TARGET.namespace)
        milestones.look(snapshot)
        story.tell(snapshot)
        if milestones.done:
            return snapshot
        wrong = _what_is_wrong(snapshot, waited=time.monotonic() - began, timeout=timeout)
        if wrong:
            report.diagnose(console, cluster, TARGET.namespace)
            raise DemoError(f"{wrong}; conditions, pods and the operator's log stand above")
        time.sleep(POLL_SECONDS)


def _what_is_wrong(snapshot: Snapshot, *, waited: float, timeout: float) -> str:
    """Say why waiting on makes no sense, or nothing."""
    without_image = list(images_not_found(snapshot))
    if without_image and waited > IMAGE_SECONDS:
        return f"pod {without_image[0]}, which no registry has: run `make images`"
    if waited > timeout:
        return f"InferenceModel/{TARGET.model} is not Ready after {timeout:.0f} s"
    return ""


def _print_tables(
    console: Console, milestones: Milestones, snapshot: Snapshot, outcomes: Sequence[Outcome]
) -> None:
    """Print the closing tables."""
    console.print()
    console.print(report.stages_table(milestones.in_order()))
    steps = job_steps(snapshot)
    if steps:
        console.print(report.steps_table(steps))
    console.print(report.requests_table(outcomes))


def _judge(console: Console, outcomes: Sequence[Outcome], sample: Sample) -> None:
    """Say whether the answers were right, and how much that proves.

    Raises:
        DemoError: some were not.
    """
    sent, right = sum(outcome.sent for outcome in outcomes), sum(outcome.right for outcome in outcomes)
    failures = [failure for outcome in outcomes for failure in outcome.failures]
    if right != sent:
        reason = f"; the first failure: {failures[0]}" if failures else ""
        raise DemoError(f"{sent - right} of {sent} answers were not right{reason}")
    console.print(f"{right} of {sent} answers are those that the onnx wheel ships.", style="bold green")
    if sample.spread == 0:
        console.print(
            "The sample has constant weights, so the right answer is the same for every input: this shows "
            "that the whole path works, not that inputs are told apart.",
            style="dim",
        )


@contextmanager
def _step(console: Console, name: str) -> Iterator[None]:
    began = time.monotonic()
    console.print(f"» {name}", style="bold")
    yield
    console.print(f"  done in {time.monotonic() - began:.1f} s", style="dim")
