"""The fleet: one converger task per Triton pod, so that a hanging pod holds up nobody."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Iterable

from triton_operator.controllers.converger import Converger, PodReport, Triton
from triton_operator.plan.converge import Desired
from triton_operator.plan.pods import RunningContainer

Place = tuple[str, str]
"""Namespace and name of a TritonServer."""

Connect = Callable[[str, str], Triton]
"""Given a pod's IP address and the control key, a client of that Triton."""


@dataclasses.dataclass(frozen=True)
class Assignment:
    """What every pod of a server must serve, and the key that lets us tell it."""

    desired: Desired
    control_key: str


@dataclasses.dataclass
class _Member:
    converger: Converger
    task: asyncio.Task[None]
    control_key: str


class Fleet:
    """Starts and ends convergers as pods come and go, and keeps their reports.

    `on_change` is told the server whose pods report something new.
    """

    def __init__(
        self,
        *,
        connect: Connect,
        on_change: Callable[[Place], None],
        interval_seconds: float,
        load_timeout_seconds: float,
        on_load: Callable[[str, str, float], None],
    ) -> None:
        self._connect = connect
        self._on_change = on_change
        self._interval = interval_seconds
        self._load_timeout = load_timeout_seconds
        self._on_load = on_load
        self._assignments: dict[Place, Assignment] = {}
        self._pods: dict[Place, dict[str, RunningContainer]] = {}
        self._members: dict[Place, dict[str, _Member]] = {}
        self._tried: set[Place] = set()
        self._ending: set[asyncio.Task[None]] = set()

    def assign(self, place: Place, assignment: Assignment) -> None:
        """Say what a server's pods must serve."""
        if self._assignments.get(place) != assignment:
            self._assignments[place] = assignment
            self._reconcile(place)

    def dismiss(self, place: Place) -> None:
        """Forget a server that is gone."""
        self._assignments.pop(place, None)
        self._pods.pop(place, None)
        self._tried.discard(place)
        self._reconcile(place)

    def observe(self, place: Place, containers: Iterable[RunningContainer]) -> None:
        """Say which Triton containers of a server run now."""
        found = {container.uid: container for container in containers}
        if self._pods.get(place, {}) != found:
            self._pods[place] = found
            self._reconcile(place)
            self._on_change(place)

    def tried(self, place: Place) -> bool:
        """Tell whether a server was looked at since this process began, even if in vain."""
        return place in self._tried

    def note_tried(self, place: Place) -> None:
        """Remember that a server was looked at; whoever waited for that is told."""
        if place not in self._tried:
            self._tried.add(place)
            self._on_change(place)

    def reports(self, place: Place) -> tuple[PodReport, ...]:
        """Return what the pods of a server that run now report, in the order of their names."""
        members = self._members.get(place, {})
        return tuple(sorted((m.converger.report for m in members.values()), key=lambda r: r.pod))

    async def close(self) -> None:
        """End all convergers."""
        for place in list(self._members):
            self.dismiss(place)
        await asyncio.gather(*self._ending, return_exceptions=True)

    def _reconcile(self, place: Place) -> None:
        assignment = self._assignments.get(place)
        pods = self._pods.get(place, {}) if assignment is not None else {}
        members = self._members.setdefault(place, {})
        for uid, member in list(members.items()):
            gone = uid not in pods or pods[uid].ip != member.converger.container.ip
            if gone or assignment is None or member.control_key != assignment.control_key:
                self._end(members.pop(uid))
        if assignment is not None:
            for uid, container in pods.items():
                if uid not in members:
                    members[uid] = self._start(place, container, assignment)
                members[uid].converger.update(container, assignment.desired)
        if not members:
            self._members.pop(place, None)

    def _start(self, place: Place, container: RunningContainer, assignment: Assignment) -> _Member:
        converger = Converger(
            container,
            triton=self._connect(container.ip, assignment.control_key),
            namespace=place[0],
            interval_seconds=self._interval,
            load_timeout_seconds=self._load_timeout,
            on_report=lambda: self._on_change(place),
            on_load=self._on_load,
        )
        task = asyncio.create_task(converger.run(), name=f"converger {place[0]}/{container.pod}")
        return _Member(converger=converger, task=task, control_key=assignment.control_key)

    def _end(self, member: _Member) -> None:
        task = asyncio.create_task(_stop(member))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


async def _stop(member: _Member) -> None:
    """End a converger and close its connection, even if it never came to run."""
    member.task.cancel()
    await asyncio.gather(member.task, return_exceptions=True)
    await member.converger.close()
