from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable

from tests.triton_machine import TritonMachine, desired

from triton_operator.controllers.fleet import Assignment, Fleet, Place
from triton_operator.plan.loads import Fault
from triton_operator.plan.pods import RunningContainer

SERVER = ("vision", "a10")
ONE = {"model": desired("f1", 1)}


def a_container(number: int, *, ip: str = "", restart: int = 1) -> RunningContainer:
    return RunningContainer(
        pod=f"pod-{number}",
        uid=f"uid-{number}",
        ip=ip or f"10.0.0.{number}",
        container_id=f"containerd://{number}-{restart}",
    )


class Cluster:
    """Tritons by address, and the fleet that tends them."""

    def __init__(self) -> None:
        self.machines: dict[str, TritonMachine] = {}
        self.connections: list[tuple[str, str]] = []
        self.told: list[Place] = []
        self.prepare: Callable[[TritonMachine], None] = lambda machine: None
        self.fleet = Fleet(
            connect=self._connect,
            observer=self,
            interval_seconds=60,
        )

    def reported(self, place: Place) -> None:
        self.told.append(place)

    def loaded(self, operation: str, result: str, seconds: float) -> None:
        """Nobody counts here."""

    def drifted(self, place: Place, pod: str, what: str) -> None:
        raise AssertionError(f"{place} {pod}: {what}")

    def _connect(self, ip: str, control_key: str) -> TritonMachine:
        self.connections.append((ip, control_key))
        self.machines[ip] = TritonMachine()
        self.prepare(self.machines[ip])
        return self.machines[ip]

    def serving(self) -> dict[str, frozenset[int]]:
        return {report.pod: self._ready(report.pod) for report in self.fleet.reports(SERVER)}

    def _ready(self, pod: str) -> frozenset[int]:
        report = next(report for report in self.fleet.reports(SERVER) if report.pod == pod)
        return report.models["model"].ready if "model" in report.models else frozenset()


@contextlib.asynccontextmanager
async def a_cluster() -> AsyncIterator[Cluster]:
    cluster = Cluster()
    try:
        yield cluster
    finally:
        await cluster.fleet.close()
        assert all(machine.closed for machine in cluster.machines.values())


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - anything may change it
            await asyncio.sleep(0.001)


async def test_every_pod_of_a_server_is_brought_to_its_assignment() -> None:
    async with a_cluster() as cluster:
        cluster.fleet.assign(SERVER, Assignment(ONE, "key"))
        cluster.fleet.observe(SERVER, [a_container(2), a_container(1)])
        await until(lambda: cluster.serving() == {"pod-1": {1}, "pod-2": {1}})
        assert cluster.connections == [("10.0.0.2", "key"), ("10.0.0.1", "key")]
        assert SERVER in cluster.told
        cluster.fleet.assign(SERVER, Assignment({"model": desired("f1", 1, 2)}, "key"))
        await until(lambda: cluster.serving() == {"pod-1": {1, 2}, "pod-2": {1, 2}})
        assert len(cluster.connections) == 2


async def test_a_hanging_pod_holds_up_nobody() -> None:
    async with a_cluster() as cluster:
        cluster.fleet.assign(SERVER, Assignment(ONE, "key"))
        cluster.fleet.observe(SERVER, [a_container(1)])
        cluster.machines["10.0.0.1"].gate.clear()
        cluster.fleet.observe(SERVER, [a_container(1), a_container(2)])
        await until(lambda: cluster.serving() == {"pod-1": frozenset(), "pod-2": {1}})


async def test_pods_come_and_go_with_their_convergers() -> None:
    async with a_cluster() as cluster:
        cluster.fleet.assign(SERVER, Assignment(ONE, "key"))
        cluster.fleet.observe(SERVER, [a_container(1), a_container(2)])
        await until(lambda: len(cluster.serving()) == 2)
        cluster.fleet.observe(SERVER, [a_container(2)])
        await until(lambda: cluster.machines["10.0.0.1"].closed)  # even if it never came to run
        assert [report.pod for report in cluster.fleet.reports(SERVER)] == ["pod-2"]
        assert not cluster.machines["10.0.0.2"].closed


async def test_nobody_is_told_what_has_not_changed() -> None:
    async with a_cluster() as cluster:
        cluster.fleet.assign(SERVER, Assignment(ONE, "key"))
        cluster.fleet.observe(SERVER, [a_container(1)])
        await until(lambda: cluster.serving() == {"pod-1": {1}})
        before = len(cluster.told)
        cluster.fleet.observe(SERVER, [a_container(1)])
        cluster.fleet.assign(SERVER, Assignment(ONE, "key"))
        await asyncio.sleep(0.02)
        assert len(cluster.told) == before
        assert cluster.machines["10.0.0.1"].calls == ["load model"]


async def test_a_restarted_container_keeps_its_connection_and_is_looked_at() -> None:
    async with a_cluster() as cluster:
        cluster.fleet.assign(SERVER, Assignment(ONE, "key"))
        cluster.fleet.observe(SERVER, [a_container(1)])
        await until(lambda: cluster.serving() == {"pod-1": {1}})
        cluster.machines["10.0.0.1"].restart()
        cluster.fleet.observe(SERVER, [a_container(1, restart=2)])
        await until(lambda: cluster.machines["10.0.0.1"].serving() == {1})
        assert len(cluster.connections) == 1


async def test_what_a_container_died_of_is_known_to_the_next_one_of_its_pod() -> None:
    tried = {"model.candidate": dataclasses.replace(desired("f2", 2, name="model.candidate"), trial=True)}
    async with a_cluster() as cluster:
        standing = frozenset({"uid-1"})
        cluster.fleet.assign(SERVER, Assignment(ONE, "key", trials={"uid-1": tried}))
        cluster.fleet.observe(SERVER, [], standing=standing)
        assert cluster.connections == []
        cluster.prepare = lambda machine: machine.crashing.add("model.candidate")
        cluster.fleet.observe(SERVER, [a_container(1)], standing=standing)
        machine = cluster.machines["10.0.0.1"]
        await until(lambda: not machine.reachable)
        cluster.fleet.observe(SERVER, [], standing=standing)  # it has ended, the pod stands
        machine.restart()
        machine.reachable = True
        machine.start("model", desired("f1", 1))
        cluster.fleet.observe(SERVER, [a_container(1, restart=2)], standing=standing)
        await until(lambda: cluster.serving() == {"pod-1": {1}})
        (report,) = cluster.fleet.reports(SERVER)
        assert report.models["model.candidate"].given_up is Fault.CRASHED
        assert machine.calls.count("load model.candidate") == 1
        cluster.fleet.observe(SERVER, [])
        await until(lambda: machine.closed)


async def test_a_pod_is_not_current_until_it_was_asked_about_what_is_wanted_now() -> None:
    async with a_cluster() as cluster:
        cluster.fleet.assign(SERVER, Assignment(ONE, "key"))
        cluster.fleet.observe(SERVER, [a_container(1)])
        await until(lambda: cluster.serving() == {"pod-1": {1}})
        assert cluster.fleet.reports(SERVER)[0].models["model"].current
        cluster.fleet.assign(SERVER, Assignment({"model": desired("f2", 1)}, "key"))
        assert not cluster.fleet.reports(SERVER)[0].models["model"].current
        await until(lambda: cluster.fleet.reports(SERVER)[0].models["model"].current)


async def test_another_address_or_another_key_is_another_connection() -> None:
    async with a_cluster() as cluster:
        cluster.fleet.assign(SERVER, Assignment(ONE, "key"))
        cluster.fleet.observe(SERVER, [a_container(1)])
        cluster.fleet.observe(SERVER, [a_container(1, ip="10.0.0.9")])
        cluster.fleet.assign(SERVER, Assignment(ONE, "another"))
        await until(lambda: cluster.serving() == {"pod-1": {1}})
        assert cluster.connections == [("10.0.0.1", "key"), ("10.0.0.9", "key"), ("10.0.0.9", "another")]


async def test_pods_that_are_seen_before_there_is_anything_to_serve_wait_for_it() -> None:
    async with a_cluster() as cluster:
        cluster.fleet.observe(SERVER, [a_container(1)])
        assert cluster.connections == []
        cluster.fleet.assign(SERVER, Assignment(ONE, "key"))
        await until(lambda: cluster.serving() == {"pod-1": {1}})


async def test_a_server_that_is_gone_is_left_alone() -> None:
    async with a_cluster() as cluster:
        cluster.fleet.assign(SERVER, Assignment(ONE, "key"))
        cluster.fleet.observe(SERVER, [a_container(1)])
        await until(lambda: cluster.serving() == {"pod-1": {1}})
        cluster.fleet.dismiss(SERVER)
        await until(lambda: cluster.machines["10.0.0.1"].closed)
        assert cluster.fleet.reports(SERVER) == ()
        assert cluster.machines["10.0.0.1"].serving() == {1}, "its pods go by themselves, serving to the end"
        cluster.fleet.dismiss(SERVER)


async def test_servers_do_not_mix() -> None:
    async with a_cluster() as cluster:
        other = ("vision", "l4")
        cluster.fleet.assign(SERVER, Assignment(ONE, "key"))
        cluster.fleet.assign(other, Assignment({}, "other"))
        cluster.fleet.observe(SERVER, [a_container(1)])
        cluster.fleet.observe(other, [a_container(2)])
        await until(lambda: cluster.serving() == {"pod-1": {1}})
        assert [report.pod for report in cluster.fleet.reports(other)] == ["pod-2"]
        assert cluster.machines["10.0.0.2"].serving() == frozenset()
