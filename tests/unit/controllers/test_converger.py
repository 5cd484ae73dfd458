from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable

import pytest
from tests.triton_machine import TritonMachine, desired

from triton_operator.controllers import converger as module
from triton_operator.controllers.converger import Converger, Limits
from triton_operator.plan.converge import Desired, DesiredModel
from triton_operator.plan.loads import MOST_REFUSED, Fault
from triton_operator.plan.pods import RunningContainer


def trial(fingerprint: str, version: int) -> DesiredModel:
    return dataclasses.replace(desired(fingerprint, version, name="model.candidate"), trial=True)


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
        self.drifts: list[str] = []
        self.converger = Converger(
            CONTAINER,
            triton=machine,
            namespace="vision",
            interval_seconds=interval,
            limits=Limits(timeout_seconds=1, slots=asyncio.Semaphore(8)),
            observer=self,
        )

    def reported(self) -> None:
        self.reports += 1

    def loaded(self, operation: str, result: str, seconds: float) -> None:
        assert seconds >= 0
        self.loads.append((operation, result))

    def drifted(self, pod: str, what: str) -> None:
        self.drifts.append(f"{pod}: {what}")

    def wants(self, wanted: Desired, container: RunningContainer = CONTAINER) -> None:
        self.converger.update(container, wanted)

    def ready(self, model: str = "model") -> frozenset[int]:
        report = self.converger.report.models.get(model)
        return report.ready if report else frozenset()

    def given_up(self, model: str = "model") -> Fault | None:
        report = self.converger.report.models.get(model)
        return report.given_up if report else None

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
        assert pod.drifts == ["pod-1: model model lacks version 1"]
        await settled(pod)
        assert len(pod.drifts) == 1, "what was put right is told once"


async def test_what_another_hand_loaded_is_unloaded_and_told() -> None:
    machine = TritonMachine()
    async with running(machine, interval=0.01) as pod:
        pod.wants({"model": desired("f1", 1)})
        await until(lambda: pod.ready() == {1})
        machine.start("stray", desired("f9", 1))
        await until(lambda: not machine.serving("stray"))
        assert pod.drifts == ["pod-1: model stray is loaded, and should not be"]


async def test_what_the_operator_does_itself_is_no_drift(machine: TritonMachine) -> None:
    async with running(machine, interval=0.005) as pod:
        pod.wants({"model": desired("f1", 1)})
        await until(lambda: pod.ready() == {1})
        pod.wants({"model": desired("f1", 1, 2)})
        await until(lambda: pod.ready() == {1, 2})
        machine.restart()
        pod.wants({"model": desired("f1", 1, 2)}, RESTARTED)
        await until(lambda: machine.serving() == {1, 2})
        pod.wants({})
        await until(lambda: not machine.serving())
        assert pod.drifts == []


async def test_a_model_that_is_left_alone_is_neither_loaded_nor_unloaded() -> None:
    machine = TritonMachine()
    machine.start("held", desired("f1", 1))
    async with running(machine, interval=0.005) as pod:
        pod.wants({"held": None, "absent": None})
        await until(lambda: pod.converger.report.loaded == {"held"})
        await settled(pod)
        assert machine.calls == []
        assert pod.converger.report.models == {}


async def test_a_version_that_is_refused_again_and_again_is_left_until_something_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LOAD_RETRY_SECONDS", (0.002, 0.004))
    machine = TritonMachine()
    machine.start("model", desired("f1", 1))
    machine.broken = {("model", 2)}
    async with running(machine, interval=0.005) as pod:
        pod.wants({"model": desired("f1", 1, 2)})
        await until(lambda: pod.given_up() is Fault.FAILED)
        await settled(pod)
        assert machine.calls == ["load model"] * MOST_REFUSED
        assert pod.ready() == {1}
        machine.broken = set()
        machine.restart()
        pod.wants({"model": desired("f1", 1, 2)}, RESTARTED)
        await until(lambda: pod.ready() == {1, 2})


async def test_a_load_that_takes_too_long_is_given_up_and_named() -> None:
    machine = TritonMachine()
    machine.slow = True
    async with running(machine) as pod:
        pod.wants({"model.candidate": trial("f1", 2)})
        await until(lambda: "not loaded after 1 s" in pod.trouble("model.candidate"))
        assert pod.given_up("model.candidate") is Fault.TIMEOUT
        assert machine.calls == ["load model.candidate"]


async def test_a_load_that_takes_long_holds_up_no_other_model() -> None:
    machine = TritonMachine()
    machine.held = {"slow"}
    async with running(machine) as pod:
        pod.wants({"slow": desired("f1", 1), "model": desired("f1", 1, 2)})
        await until(lambda: pod.ready() == {1, 2})
        pod.wants({"slow": desired("f1", 1), "model": desired("f1", 1)})
        await until(lambda: pod.ready() == {1})
        machine.held = set()
        await until(lambda: pod.ready("slow") == {1})


async def test_a_candidate_that_brings_the_container_down_is_not_loaded_again() -> None:
    machine = TritonMachine()
    machine.start("model", desired("f1", 1))
    machine.crashing = {"model.candidate"}
    wanted = {"model": desired("f1", 1), "model.candidate": trial("f2", 2)}
    async with running(machine) as pod:
        pod.wants(wanted)
        await until(lambda: not machine.reachable)
        machine.reachable = True
        machine.restart()
        machine.start("model", desired("f1", 1))
        pod.wants(wanted, RESTARTED)
        await until(lambda: pod.ready() == {1})
        assert pod.given_up("model.candidate") is Fault.CRASHED
        assert "the container ended while it loaded" in pod.trouble("model.candidate")
        await settled(pod)
        assert machine.calls == ["load model.candidate"]


async def test_a_connection_that_broke_is_not_taken_for_a_crash() -> None:
    machine = TritonMachine()
    machine.crashing = {"model"}
    async with running(machine) as pod:
        pod.wants({"model": desired("f1", 1)})
        await until(lambda: not machine.reachable)
        machine.crashing, machine.reachable = set(), True
        await until(lambda: pod.ready() == {1})
        pod.wants({"model": desired("f1", 1)}, RESTARTED)
        await until(lambda: pod.ready() == {1})
        assert pod.trouble() == ""


async def test_a_broken_version_does_not_keep_the_others_out_after_a_start() -> None:
    machine = TritonMachine()
    machine.broken = {("model", 2)}
    async with running(machine) as pod:
        pod.wants({"model": desired("f1", 1, 2)})
        await until(lambda: pod.ready() == {1})
        assert machine.calls[:2] == ["load model", "load model [1]"]
        assert "version 2 is broken" in pod.trouble()


async def test_a_pod_at_whose_address_another_answers_is_not_touched() -> None:
    machine = TritonMachine()
    machine.identity = "pod-9"
    machine.start("model", desired("f9", 9))
    async with running(machine, interval=0.005) as pod:
        pod.wants({"model": desired("f1", 1)})
        await until(lambda: "answers pod-9" in pod.converger.report.trouble)
        assert machine.calls == []
        machine.identity = "pod-1"
        await until(lambda: pod.ready() == {1})


async def test_pods_that_may_not_load_at_once_take_turns() -> None:
    slots = asyncio.Semaphore(1)
    machine = TritonMachine()
    async with slots, running(machine) as pod:
        pod.converger.limits = Limits(timeout_seconds=1, slots=slots)
        pod.wants({"model": desired("f1", 1)})
        await settled(pod)
        assert machine.calls == []
        pod.wants({"model": desired("f1", 2)})
        await settled(pod)
        slots.release()
        await until(lambda: pod.ready() == {2})
        assert machine.calls == ["load model"], "what was overtaken while it waited is not loaded"
        await slots.acquire()


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
        assert machine.calls.count("load model") == 1
        machine.broken = set()
        await until(lambda: pod.ready() == {1, 2})
        assert pod.trouble() == ""
        assert machine.calls.count("load model") == 2


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
        await until(lambda: len(machine.calls) == 2)
        first = asyncio.get_running_loop().time()
        await until(lambda: len(machine.calls) == 3)
        assert asyncio.get_running_loop().time() - first >= 0.015  # 20 ms after 10 ms
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
        await until(lambda: pod.ready() == {1})
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


async def test_looks_in_vain_at_a_pod_that_starts_do_not_delay_those_at_a_ready_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "UNREACHABLE_SECONDS", (0.02, 60))
    monkeypatch.setattr(module, "STARTING_SECONDS", 0.001)
    machine = TritonMachine()
    machine.reachable = False
    async with running(machine) as pod:
        pod.wants({"model": desired("f1", 1)})
        await asyncio.sleep(0.1)
        pod.wants({"model": desired("f1", 1)}, dataclasses.replace(CONTAINER, ready=True))
        await asyncio.sleep(0.01)  # the first look at it may still fail
        machine.reachable = True
        await until(lambda: pod.ready() == {1})


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
