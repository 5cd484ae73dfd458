"""The first half: from an ONNX model on a volume to right answers."""

import time
from collections.abc import Sequence

from demo import installation, report
from demo.cluster import Snapshot
from demo.endpoints import endpoints
from demo.errors import DemoError
from demo.milestones import Milestones, Target, in_order, job_steps
from demo.requests import Outcome, ask_all
from demo.sample import Sample, light_resnet50
from demo.scene import NAMESPACE, SERVER, Scene

TARGET = Target(namespace=NAMESPACE, model="resnet50", server=SERVER, version=1)
STAGES_TITLE = "From apply to Ready (as seen from here, twice a second)"


def show(scene: Scene) -> None:
    """Apply the quickstart, tell what happens, and ask for answers.

    Raises:
        DemoError: the model does not come up, or an answer is not right.
    """
    sample = light_resnet50()
    before = scene.cluster.snapshot(NAMESPACE)
    began = time.monotonic()
    with scene.step(f"kubectl apply -k examples/quickstart, namespace {NAMESPACE}"):
        installation.apply_quickstart(scene.images, NAMESPACE)
    scene.story.begin(began, known=before)
    milestones = Milestones(TARGET, began)
    snapshot = scene.follow(milestones.look, goal=f"InferenceModel/{TARGET.model} is Ready")
    with (
        scene.step("requests with tritonclient over HTTP and gRPC"),
        endpoints(scene.cluster, snapshot, TARGET, forward=scene.forward) as reachable,
    ):
        outcomes = ask_all(reachable, TARGET, sample)
    _print_tables(scene, milestones, snapshot, outcomes)
    _judge(scene, outcomes, sample)


def _print_tables(
    scene: Scene, milestones: Milestones, snapshot: Snapshot, outcomes: Sequence[Outcome]
) -> None:
    scene.console.print()
    scene.console.print(report.stages_table(in_order(milestones.seconds), title=STAGES_TITLE))
    steps = job_steps(snapshot)
    if steps:
        scene.console.print(report.steps_table(steps))
    scene.console.print(report.requests_table(outcomes))


def _judge(scene: Scene, outcomes: Sequence[Outcome], sample: Sample) -> None:
    """Say whether the answers were right, and how much that proves."""
    sent, right = sum(outcome.sent for outcome in outcomes), sum(outcome.right for outcome in outcomes)
    failures = [failure for outcome in outcomes for failure in outcome.failures]
    if right != sent:
        reason = f"; the first failure: {failures[0]}" if failures else ""
        raise DemoError(f"{sent - right} of {sent} answers were not right{reason}")
    scene.console.print(f"{right} of {sent} answers are those that the onnx wheel ships.", style="bold green")
    if sample.spread == 0:
        scene.console.print(
            "The sample has constant weights, so the right answer is the same for every input: this shows "
            "that the whole path works, not that inputs are told apart.",
            style="dim",
        )
