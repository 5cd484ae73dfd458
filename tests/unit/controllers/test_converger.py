from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest
from tests.triton_machine import TritonMachine, desired

from triton_operator.controllers import converger as module
from triton_operator.controllers.converger import Converger
from triton_operator.plan.converge import Desired
from triton_operator.plan.pods import RunningContainer

CONTAINER = RunningContainer(pod="pod-1", uid="uid-1", ip="10.0.0.1", container_id="containerd://1")
RESTARTED = RunningContainer(pod="pod-1", uid="uid-1", ip="10.0.0.1", container_id="containerd://2")


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what takes seconds take milliseconds; the order of things stays."""
    monkeypatch.setattr(module, "MOVING_SECONDS", 0.002)
    monkeypatch.setattr(module, "UNREACHABLE_SECONDS", (0.005, 0.01))
    monkeypatch.setattr(module, "LOAD_RETRY_SECONDS", (0.05, 0.1))


class Pod:
    """A converger at work on a Triton in memory."""

    def __init__(self, machine: TritonMachine, *, interval: float = 60) -> None:
        self.machine = machine
        self.reports = 0
        self.loads: list[tuple[str, str]] = []
        self.converger = Converger(
            CONTAINER,
            triton=machine,
            namespace="vision",
            interval_seconds=interval,
            load_timeout_seconds=1,
            on_report=self._count,
            on_load=lambda operation, result, _: self.loads.append((operation, result)),
        )

    def _count(self) -> None:
        self.reports += 1

    def wants(self, wanted: Desired, container: RunningContainer = CONTAINER) -> None:
        self.converger.update(container, wanted)

    def ready(self, model: str = "model") -> frozenset[int]:
        report = self.converger.report.models.get(model)
        return report.ready if report else frozenset()

    def trouble(self, model: str = "model") -> str:
        report = self.converger.report.models.get(model)
        return report.trouble if report else self.converger.report.trouble


@contextlib.asynccontextmanager
async def running(machine: TritonMachine, *, interval: float = 60) -> AsyncIterator[Pod]:
    pod = Pod(machine, interval=interval)
    task = asyncio.create_task(pod.converger.run())
    try:
        yield pod
        assert not task.done(), "a converger ends only when it is told to"
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await pod.converger.close()
        assert machine.closed


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - anything may change it
            await asyncio.sleep(0.001)


async def settled(pod: Pod) -> None:
    """Wait until some looks have brought nothing new."""
    for _ in range(3):
        pod.machine.seen.clear()
        await asyncio.sleep(0.02)


@pytest.fixture(params=[True, False], ids=["at once", "bit by bit"])
def machine(request: pytest.FixtureRequest) -> TritonMachine:
    return TritonMachine(instant=request.param)


async def test_a_pod_is_brought_to_what_its_tree_says(machine: TritonMachine) -> None:
    machine.start("former", desired("f", 1))
    async with running(machine) as pod:
        pod.wants({"model": desired("f1", 1, 2)})
        await until(lambda: pod.ready() == {1, 2})
        await until(lambda: not machine.serving("former"))
        assert pod.converger.report.models["model"].current
        pod.wants({"model": desired("f2", 2)})
        await until(lambda: pod.ready() == {2} and pod.converger.report.models["model"].current)
        pod.wants({})
        await until(lambda: not machine.serving())


async def test_a_pod_that_is_right_already_is_not_touched() -> None:
    machine = TritonMachine()
    machine.start("model", desired("f1", 1))
    async with running(machine, interval=0.005) as pod:
        pod.wants({"model": desired("f1", 1)})
        await until(lambda: pod.ready() == {1})
        reports = pod.reports
        await settled(pod)
        assert machine.calls == []
        assert pod.reports == reports, "at rest nothing is told"


async def test_drift_is_mended_at_the_next_look() -> None:
    machine = TritonMachine()
    async with running(machine, interval=0.01) as pod:
        pod.wants({"model": desired("f1", 1)})
        await until(lambda: pod.ready() == {1})
        machine.begin_unload("model")
        machine.tick()
        await until(lambda: machine.calls.count("load model") == 2 and machine.serving() == {1})


async def test_a_restarted_container_is_looked_at_at_once() -> None:
    machine = TritonMachine()
    async with running(machine) as pod:
        pod.wants({"model": desired("f1", 1)})
        await until(lambda: pod.ready() == {1})
        machine.restart()
        pod.wants({"model": desired("f1", 1)}, RESTARTED)
        await until(lambda: machine.serving() == {1})


async def test_a_refused_load_says_why_and_is_tried_again_later() -> None:
    machine = TritonMachine()
    machine.broken = {("model", 2)}
    async with running(machine) as pod:
        pod.wants({"model": desired("f1", 1, 2)})
        await until(lambda: "version 2 is broken" in pod.trouble())
        assert machine.calls == ["load model"]
        machine.broken = set()
        await until(lambda: pod.ready() == {1, 2})
        assert pod.trouble() == ""
        assert pod.loads == [("load", "refused"), ("load", "done")]


async def test_what_served_goes_on_serving_while_a_new_version_is_refused() -> None:
    machine = TritonMachine()
    machine.start("model", desired("f1", 1))
    machine.broken = {("model", 2)}
    async with running(machine) as pod:
        pod.wants({"model": desired("f1", 1, 2)})
        await until(lambda: "broken" in pod.trouble())
        assert pod.ready() == machine.serving() == {1}


async def test_pauses_between_refused_loads_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOAD_RETRY_SECONDS", (0.01, 60))
    machine = TritonMachine()
    machine.broken = {("model", 1)}
    async with running(machine) as pod:
        pod.wants({"model": desired("f1", 1)})
        await asyncio.sleep(0.2)
        assert 2 <= len(machine.calls) <= 5  # at 0, 10, 30, 70 and 150 ms
        assert "times" in pod.trouble()


async def test_a_changed_wish_does_not_wait_for_the_pause_of_the_old_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LOAD_RETRY_SECONDS", (60, 60))
    machine = TritonMachine()
    machine.broken = {("model", 2)}
    async with running(machine) as pod:
        pod.wants({"model": desired("f1", 1, 2)})
        await until(lambda: "broken" in pod.trouble())
        pod.wants({"model": desired("f1", 1, 3)})  # the same configuration, other versions
        await until(lambda: pod.ready() == {1, 3})


async def test_a_model_that_is_refused_holds_up_no_other() -> None:
    machine = TritonMachine()
    machine.broken = {("broken", 1)}
    machine.start("former", desired("f", 1))
    machine.refuses_unload = True
    async with running(machine) as pod:
        pod.wants({"broken": desired("f1", 1), "model": desired("f1", 1)})
        await until(lambda: pod.ready() == {1})
        assert pod.converger.report.trouble == ""
        assert machine.calls.count("unload former") == 1


async def test_a_load_that_is_answered_and_did_nothing_is_not_believed() -> None:
    machine = TritonMachine()
    machine.absent = {("model", 2)}  # the pod's view of the volume is behind
    async with running(machine) as pod:
        pod.wants({"model": desired("f1", 1, 2)})
        await until(lambda: "version 2 is not ready" in pod.trouble())
        assert pod.ready() == {1}
        machine.absent = set()
        await until(lambda: pod.ready() == {1, 2})


async def test_a_load_without_effect_is_not_repeated_without_a_pause() -> None:
    machine = TritonMachine()
    machine.start("model", desired("f1", 1))
    machine.idle = True
    async with running(machine) as pod:
        pod.wants({"model": desired("f2", 1)})  # version 1 is ready, but under the old configuration
        await until(lambda: "still serves something else" in pod.trouble())
        assert machine.calls == ["load model"]
        assert not pod.converger.report.models["model"].current


async def test_a_pod_that_does_not_answer_is_asked_again() -> None:
    machine = TritonMachine()
    machine.reachable = False
    async with running(machine) as pod:
        pod.wants({"model": desired("f1", 1)})
        await until(lambda: pod.converger.report.trouble == "failed to connect")
        assert pod.ready() == frozenset()
        machine.reachable = True
        await until(lambda: pod.ready() == {1})
        assert pod.converger.report.trouble == ""


async def test_a_pod_that_stops_answering_confirms_nothing_any_more() -> None:
    machine = TritonMachine()
    async with running(machine, interval=0.005) as pod:
        pod.wants({"model": desired("f1", 1)})
        await until(lambda: pod.ready() == {1})
        machine.reachable = False
        await until(lambda: pod.converger.report.trouble != "")
        assert pod.converger.report.models == {}


async def test_whatever_goes_wrong_the_pod_is_looked_at_again() -> None:
    machine = TritonMachine()
    machine.fault = ValueError("not a model configuration")
    async with running(machine) as pod:
        pod.wants({"model": desired("f1", 1)})
        await until(lambda: "not a model configuration" in pod.converger.report.trouble)
        machine.fault = None
        await until(lambda: pod.ready() == {1})


async def test_a_change_during_a_look_is_not_lost() -> None:
    machine = TritonMachine()
    async with running(machine) as pod:
        machine.gate.clear()
        pod.wants({"model": desired("f1", 1)})
        await asyncio.sleep(0.01)  # the look hangs in a call
        pod.wants({"model": desired("f1", 1, 2)})
        machine.gate.set()
        await until(lambda: pod.ready() == {1, 2})
