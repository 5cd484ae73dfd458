"""The second half: version 2 of a model while requests come in, and back to version 1."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from demo import colours, installation, report
from demo.cluster import Object, Snapshot, is_true
from demo.endpoints import Endpoint, endpoints
from demo.errors import DemoError
from demo.milestones import Target, in_order
from demo.scene import NAMESPACE, SERVER, Scene
from demo.story import Line
from demo.timeline import Timeline, watching
from load import LoadError, Plan, Record, Run, analysis, mixed, running

TARGET = Target(namespace=NAMESPACE, model=colours.MODEL, server=SERVER, version=2)
RATE = 100.0
"""Requests a second, whatever becomes of those before."""
AROUND_SECONDS = 2.0
"""So long the load goes on before the first change, and after each."""


@dataclass(frozen=True)
class Seen:
    """What there is to tell: all requests, all states of the model, and when it was changed."""

    records: Sequence[Record]
    timeline: Timeline
    added: float
    removed: float


def show(scene: Scene) -> None:
    """Add version 2 under load, remove it again, and tell what clients noticed.

    Raises:
        DemoError: a request failed, an answer was wrong, or the model does not get there.
    """
    with scene.step("kubectl apply -k examples/rollout: two versions of a model that names colours"):
        installation.write_rollout_sources(scene.images, NAMESPACE)
    scene.story.begin(time.monotonic(), known=scene.cluster.snapshot(NAMESPACE))
    with scene.step("kubectl apply -f examples/rollout/version-1.yaml"):
        installation.start_rollout(NAMESPACE, colours.MODEL)
        snapshot = scene.follow(_serves([1]), goal=f"InferenceModel/{colours.MODEL} serves version 1")
    with (
        endpoints(scene.cluster, snapshot, TARGET, forward=scene.forward) as (service, *_),
        watching(scene.cluster, NAMESPACE, colours.MODEL) as timeline,
    ):
        seen = _switch_under_load(scene, service, timeline)
    _print_tables(scene, seen)
    _judge(scene, seen)


def _switch_under_load(scene: Scene, service: Endpoint, timeline: Timeline) -> Seen:
    plan = Plan(question=colours.question(), streams=mixed(http=service.http, grpc=service.grpc), rate=RATE)
    try:
        with running(plan) as run:
            scene.console.print(f"» {RATE:.0f} requests a second to {service.name} from now on", style="bold")
            time.sleep(AROUND_SECONDS)
            added = _change(scene, service, "version-2.yaml", serves=[1, 2])
            removed = _change(scene, service, "version-1.yaml", serves=[1])
            return Seen(_stopped(scene, run), timeline, added=added, removed=removed)
    except LoadError as error:
        raise DemoError(str(error)) from error


def _change(scene: Scene, service: Endpoint, manifest: str, *, serves: Sequence[int]) -> float:
    """Apply a step of the rollout, tell what happens until it is done, and return when it began."""
    began = time.monotonic()
    scene.story.begin(began)

    def reached(snapshot: Snapshot) -> bool:
        answer = colours.ask(service.http)
        scene.story.tell_line(Line(service.name, "answers", str(answer)))
        return _serves(serves)(snapshot) and answer.version == max(serves)

    scene.story.tell_line(Line(service.name, "answers", str(colours.ask(service.http))))
    with scene.step(f"kubectl apply -f examples/rollout/{manifest}"):
        installation.apply_rollout(manifest, NAMESPACE)
        numbers = " and ".join(map(str, serves))
        scene.follow(reached, goal=f"InferenceModel/{colours.MODEL} serves version {numbers}")
    time.sleep(AROUND_SECONDS)
    return began


def _stopped(scene: Scene, run: Run) -> Sequence[Record]:
    records = run.stop()
    scene.console.print(f"» the requests end: {len(records)} were sent", style="bold")
    return records


def _serves(numbers: Sequence[int]) -> Callable[[Snapshot], bool]:
    """Return what tells whether the model serves these versions and no other."""
    listed = ",".join(map(str, numbers))

    def holds(snapshot: Snapshot) -> bool:
        model = snapshot.get("InferenceModel", colours.MODEL)
        status = model.get("status", {}) if model is not None else {}
        states = {entry["state"] for entry in status.get("versions", [])}
        return (
            is_true(model, "Ready") and status.get("versionsServing") == listed and "Retiring" not in states
        )

    return holds


def _print_tables(scene: Scene, seen: Seen) -> None:
    scene.console.print()
    scene.console.print(report.traffic_table(seen.records))
    scene.console.print(
        report.stages_table(in_order(_coming(seen)), title="Version 2 comes, from when the API server had it")
    )
    scene.console.print(
        report.stages_table(in_order(_going(seen)), title="Version 2 goes, from when the API server had it")
    )
    scene.console.print(
        f"\nThe story of {colours.MODEL}, as `kubectl describe tmodel {colours.MODEL}` ends its status:",
        style="bold",
    )
    scene.console.print(report.history(NAMESPACE, colours.MODEL), markup=False, soft_wrap=True)
    scene.console.print()


def _coming(seen: Seen) -> dict[str, float]:
    """Return the second of each stage from the apply of version 2 on."""

    def first(holds: Callable[[Object], bool]) -> float | None:
        return seen.timeline.first(lambda model: _lists_two(model) and holds(model), after=seen.added)

    return _seconds(
        first(_lists_two),
        {
            "candidate: on one pod, for no request": first(lambda model: _two(model)["state"] == "Candidate"),
            "its answers were right: promoted": first(lambda model: _two(model)["state"] == "Promoted"),
            "first answer from version 2": analysis.first_answer(seen.records, 2),
            "loaded on every pod": first(lambda model: "servedSince" in _two(model)),
            "InferenceModel Ready": first(lambda model: is_true(model, "Ready")),
        },
    )


def _going(seen: Seen) -> dict[str, float]:
    """Return the second of each stage of the way back."""

    def first(holds: Callable[[Object], bool]) -> float | None:
        return seen.timeline.first(lambda model: not _lists_two(model) and holds(model), after=seen.removed)

    return _seconds(
        first(lambda _: True),
        {
            "last answer from version 2": analysis.last_answer(seen.records, 2),
            "InferenceModel Ready": first(lambda model: is_true(model, "Ready")),
        },
    )


def _lists_two(model: Object) -> bool:
    return any(version["number"] == TARGET.version for version in model["spec"]["versions"])


def _two(model: Object) -> Object:
    entries = model.get("status", {}).get("versions", [])
    return next((entry for entry in entries if entry["number"] == TARGET.version), {"state": ""})


def _seconds(taken: float | None, moments: Mapping[str, float | None]) -> dict[str, float]:
    """Return what was seen, in seconds since the API server took the change."""
    if taken is None:
        return {}
    return {name: moment - taken for name, moment in moments.items() if moment is not None}


def _judge(scene: Scene, seen: Seen) -> None:
    """Say whether clients noticed anything but the new answers."""
    failed, wrong = analysis.failures(seen.records), analysis.wrong_answers(seen.records)
    if failed:
        raise DemoError(f"{len(failed)} of {len(seen.records)} requests failed; the first: {failed[0].error}")
    if wrong:
        raise DemoError(f"{len(wrong)} of {len(seen.records)} answers were wrong; the first: {wrong[0]}")
    if not analysis.answered_by(seen.records, 2):
        raise DemoError("version 2 is Ready and never answered")
    setbacks = analysis.setbacks(analysis.scheduled_within(seen.records, begin=0, end=seen.removed))
    if setbacks:
        raise DemoError(f"a connection had answers from version 2, then from 1: {setbacks[0]}")
    scene.console.print(
        f"{len(seen.records)} requests while version 2 came and went: 0 failed, every answer was right for "
        "its version.",
        style="bold green",
    )
    scene.console.print(
        "No connection that had heard version 2 heard version 1 again before the way back. "
        "The right answers are those of onnx's own evaluator.",
        style="dim",
    )
