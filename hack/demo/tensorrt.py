"""The third part: one model, and a TensorRT plan of it for each of two GPU types."""

import time
from collections.abc import Mapping

from demo import colours, installation, report
from demo.cluster import Snapshot, is_true
from demo.colours import Answer
from demo.endpoints import endpoints
from demo.errors import DemoError
from demo.milestones import Target
from demo.plans import plans_of
from demo.scene import NAMESPACE, Scene

MODEL, MANIFEST = "colours-tensorrt", "colours.yaml"
VERSION, RIGHT = 2, "orange"


def show(scene: Scene) -> None:
    """Have a plan compiled for each GPU type, and ask the servers on both.

    Raises:
        DemoError: a plan is not built, or an answer is not right.
    """
    before = scene.cluster.snapshot(NAMESPACE)
    scene.story.begin(time.monotonic(), known=before)
    with scene.step("examples/tensorrt: servers on A10 and on L4 nodes, and a model for both in FP16"):
        servers = installation.apply_tensorrt(scene.images, NAMESPACE, MANIFEST)
        snapshot = scene.follow(
            lambda found: is_true(found.get("InferenceModel", MODEL), "Ready"),
            goal=f"InferenceModel/{MODEL} is Ready",
        )
    plans = plans_of(MODEL, snapshot, before=before, namespace=NAMESPACE)
    answers = {server: _ask(scene, snapshot, server) for server in servers}
    scene.console.print()
    scene.console.print(report.plans_table(plans))
    _judge(scene, answers)
    with scene.step(f"kubectl delete tmodel {MODEL}: engines stay, pods that serve nothing free their GPU"):
        installation.delete_model(MODEL, NAMESPACE)


def _ask(scene: Scene, snapshot: Snapshot, server: str) -> Answer:
    target = Target(namespace=NAMESPACE, model=MODEL, server=server, version=VERSION)
    with endpoints(scene.cluster, snapshot, target, forward=scene.forward) as (service, *_):
        return colours.ask(service.http, model=MODEL)


def _judge(scene: Scene, answers: Mapping[str, Answer]) -> None:
    wrong = {server: answer for server, answer in answers.items() if answer.colour != RIGHT}
    if wrong:
        raise DemoError(f"{colours.PIXEL_NAME} is {RIGHT}, and not: {wrong}")
    told = "; ".join(f"{server}: {answer}" for server, answer in answers.items())
    scene.console.print(told, style="bold green")
    scene.console.print(
        "The plans are real: TensorRT for RTX compiled them, which needs no GPU. No GPU ran them: a "
        "stand-in for Triton's TensorRT backend looked at them, and answered by the model behind them.",
        style="dim",
    )
