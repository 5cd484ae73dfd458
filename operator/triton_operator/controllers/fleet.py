"""The fleet: one converger task per Triton pod, so that a hanging pod holds up nobody."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from triton_operator.controllers.converger import Converger, Limits, PodReport, Triton
from triton_operator.plan.converge import Desired
from triton_operator.plan.pods import RunningContainer

Place = tuple[str, str]
"""Namespace and name of a TritonServer."""

Connect = Callable[[str, str], Triton]
"""Given a pod's IP address and the control key, a client of that Triton."""


@dataclasses.dataclass(frozen=True)
class Assignment:
    """What every pod of a server must serve, and the key that lets us tell it.

    `trials` are what single pods load besides, by the pod's UID; pods `left_alone` keep the models
    that they have, as they have them. At most `loads_at_once` pods load
    at the same time, and none longer than `load_timeout_seconds` at a time.
    """

    desired: Desired
    control_key: str
    trials: Mapping[str, Desired] = dataclasses.field(default_factory=dict)
    left_alone: frozenset[str] = frozenset()
    loads_at_once: int = 8
    load_timeout_seconds: float = 600

    def of(self, uid: str) -> Desired:
        """Return what the pod of this UID must serve."""
        if uid in self.left_alone:
            return dict.fromkeys(self.desired)
        return {**self.desired, **self.trials.get(uid, {})}


class FleetObserver(Protocol):
    """Who is told what happens to the pods of a server."""

    def reported(self, place: Place) -> None:
        """Note that a pod of this server reports something new."""

    def loaded(self, operation: str, result: str, seconds: float) -> None:
        """Note a load or unload on one pod: `done`, `refused` or `unreachable`."""

    def drifted(self, place: Place, pod: str, what: str) -> None:
        """Note that a pod was found changed by another hand."""


@dataclasses.dataclass(frozen=True)
class _OnServer:
    """What the convergers of one server tell, told with the server's name."""

    place: Place
    observer: FleetObserver

    def reported(self) -> None:
        self.observer.reported(self.place)

    def loaded(self, operation: str, result: str, seconds: float) -> None:
        self.observer.loaded(operation, result, seconds)

    def drifted(self, pod: str, what: str) -> None:
        self.observer.drifted(self.place, pod, what)


@dataclasses.dataclass
class _Member:
    converger: Converger
    task: asyncio.Task[None]
    control_key: str


class Fleet:
    """Starts and ends convergers as pods come and go, and keeps their reports."""

    def __init__(self, *, connect: Connect, observer: FleetObserver, interval_seconds: float) -> None:
        self._connect = connect
        self._observer = observer
        self._interval = interval_seconds
        self._assignments: dict[Place, Assignment] = {}
        self._limits: dict[Place, Limits] = {}
        self._pods: dict[Place, dict[str, RunningContainer]] = {}
        self._standing: dict[Place, frozenset[str]] = {}
        self._members: dict[Place, dict[str, _Member]] = {}
        self._tried: set[Place] = set()
        self._ending: set[asyncio.Task[None]] = set()

    def assign(self, place: Place, assignment: Assignment) -> None:
        """Say what a server's pods must serve."""
        before = self._assignments.get(place)
        if before == assignment:
            return
        if before is None or _limits(before) != _limits(assignment):
            slots = asyncio.Semaphore(assignment.loads_at_once)
            self._limits[place] = Limits(assignment.load_timeout_seconds, slots)
        self._assignments[place] = assignment
        self._reconcile(place)
        self._observer.reported(place)

    def assignment(self, place: Place) -> Assignment | None:
        """Return what a server's pods must serve, as it was last said."""
        return self._assignments.get(place)

    def dismiss(self, place: Place) -> None:
        """Forget a server that is gone."""
        self._assignments.pop(place, None)
        self._limits.pop(place, None)
        self._pods.pop(place, None)
        self._standing.pop(place, None)
        self._tried.discard(place)
        self._reconcile(place)

    def observe(
        self,
        place: Place,
        containers: Iterable[RunningContainer],
        *,
        standing: frozenset[str] = frozenset(),
    ) -> None:
        """Say which Triton containers of a server run now.

        Of `standing` pods (UIDs) whose container has ended it stays known what it died of.
        """
        found = {container.uid: container for container in containers}
        if (self._pods.get(place, {}), self._standing.get(place)) != (found, standing):
            self._pods[place], self._standing[place] = found, standing
            self._reconcile(place)
            self._observer.reported(place)

    def tried(self, place: Place) -> bool:
        """Tell whether a server was looked at since this process began, even if in vain."""
        return place in self._tried

    def note_tried(self, place: Place) -> None:
        """Remember that a server was looked at; whoever waited for that is told."""
        if place not in self._tried:
            self._tried.add(place)
            self._observer.reported(place)

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
        standing = self._standing.get(place, frozenset())
        for uid, member in list(members.items()):
            known = pods.get(uid)
            gone = uid not in standing if known is None else known.ip != member.converger.container.ip
            if gone or assignment is None or member.control_key != assignment.control_key:
                self._end(members.pop(uid))
        if assignment is not None:
            for uid, container in pods.items():
                if uid not in members:
                    members[uid] = self._start(place, container, assignment)
            for uid, member in members.items():
                member.converger.limits = self._limits[place]
                member.converger.update(pods.get(uid, member.converger.container), assignment.of(uid))
        if not members:
            self._members.pop(place, None)

    def _start(self, place: Place, container: RunningContainer, assignment: Assignment) -> _Member:
        converger = Converger(
            container,
            triton=self._connect(container.ip, assignment.control_key),
            namespace=place[0],
            interval_seconds=self._interval,
            limits=self._limits[place],
            observer=_OnServer(place, self._observer),
        )
        task = asyncio.create_task(converger.run(), name=f"converger {place[0]}/{container.pod}")
        return _Member(converger=converger, task=task, control_key=assignment.control_key)

    def _end(self, member: _Member) -> None:
        task = asyncio.create_task(_stop(member))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


def _limits(assignment: Assignment) -> tuple[int, float]:
    return assignment.loads_at_once, assignment.load_timeout_seconds


async def _stop(member: _Member) -> None:
    """End a converger and close its connection, even if it never came to run."""
    member.task.cancel()
    await asyncio.gather(member.task, return_exceptions=True)
    await member.converger.close()
