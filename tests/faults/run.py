"""One run: the story in a namespace of its own, with at most one kill."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING

from tests.faults.ground import RestartedOperator, make_namespace
from tests.faults.journal import OPERATOR, Journal
from tests.faults.scenario import STEPS
from tests.faults.state import difference, observe
from tests.integration.eventually import RETRIED, eventually
from tests.integration.kube import Kube
from tests.integration.operator.stage import Stage
from tests.integration.operator.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.faults.ground import Ground
    from tests.faults.journal import Effect
    from tests.faults.scenario import Step
    from tests.faults.state import State

SETTLE_SECONDS = 90
QUIET_SECONDS = 1.5
PAUSE_SECONDS = 0.1
LOOK_SECONDS = 1.0
LONG_SECONDS = 3600.0


class Miss(Exception):
    """Something is not as in the run that nothing disturbed, or was done twice, or a request was lost."""


@dataclasses.dataclass
class Run:
    """One run; `expected` is what stood after each step without a kill, and empty if this is that run."""

    stage: Stage
    journal: Journal
    operator: RestartedOperator
    traffic: Traffic
    expected: Mapping[str, State]
    states: dict[str, State] = dataclasses.field(default_factory=dict)

    def play(self) -> None:
        """Play all steps.

        Raises:
            Miss: what went wrong, where.
        """
        for step in STEPS:
            try:
                self._play(step)
            except RETRIED as error:
                raise Miss(f"step {step.name}: {error}") from error
        self._check_deaths()
        self._check_builds()

    def _play(self, step: Step) -> None:
        self.journal.begin(step.name)
        self.traffic.expect(step.meanwhile)
        step.act(self.stage)
        if not self.expected:
            step.wait(self.stage)
            self._wait_quiet()
        self.states[step.name] = self._settle(step)
        self.traffic.expect(step.after)
        if step is STEPS[-1]:
            self._wait_quiet()
            self._settled(step)
        assert not self.traffic.lost, "; ".join(self.traffic.lost)

    def _settle(self, step: Step) -> State:
        """Wait until all stands as it must after a step."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            try:
                return self._settled(step)
            except (*RETRIED, FileNotFoundError):  # the volume may change under the look at it
                if time.monotonic() > deadline:
                    raise
            self._wait_for_news()

    def _wait_for_news(self) -> None:
        """Wait until somebody has done something and is done with it; or a while, as not all is noted."""
        until, size = time.monotonic() + LOOK_SECONDS, self.journal.size
        while self.journal.size == size and time.monotonic() < until:
            time.sleep(PAUSE_SECONDS)
        while size != (size := self.journal.size) and time.monotonic() < until:
            time.sleep(PAUSE_SECONDS)

    def _settled(self, step: Step) -> State:
        step.nudge(self.stage)
        self._age_staging()
        found = observe(self.stage)
        expected = self.expected.get(step.name, found)
        assert found == expected, "it is not as without the kill\n" + difference(expected, found)
        return found

    def _wait_quiet(self) -> None:
        """Wait until nobody has done anything for a while."""
        last = [len(self.journal.lines()), time.monotonic()]

        def quiet() -> None:
            number = len(self.journal.lines())
            if number != last[0]:
                last[:] = [number, time.monotonic()]
            assert time.monotonic() - last[1] > QUIET_SECONDS, self.journal.lines()[-5:]

        eventually(quiet, within=SETTLE_SECONDS)

    def _age_staging(self) -> None:
        """Let an hour pass for what a killed job has left: a sweep leaves young staging directories alone."""
        target = self.journal.target
        if target is None or not self.journal.killed or target.line.role == OPERATOR:
            return
        then = time.time() - LONG_SECONDS
        for place in (self.stage.volume() / ".staging").glob("*-*-*-*-*"):
            for path in (place, *place.rglob("*")):
                os.utime(path, (then, then))

    def _check_deaths(self) -> None:
        target = self.journal.target
        killed = self.journal.killed and target is not None and target.line.role == OPERATOR
        wanted = [-signal.SIGKILL] if killed else []
        if self.operator.deaths != wanted:
            raise Miss(
                f"the operator ended {self.operator.deaths}, expected {wanted}: {self.operator.tail()}"
            )

    def _check_builds(self) -> None:
        """Every engine was published once, and no Job was made for it afterwards."""
        published: Counter[str] = Counter()
        for line in self.journal.lines():
            if line.name == "store.publish":
                published[line.about] += 1
            if line.name == "api.create.Job" and line.about.rpartition("-")[0] in published:
                raise Miss(f"Job {line.about} was made though its engine had been published")
        if sorted(published.values()) != [1, 1, 1]:
            raise Miss(f"engines were published {dict(published)} times")


@contextlib.contextmanager
def prepared(
    ground: Ground, directory: Path, *, target: Effect | None = None, expected: Mapping[str, State]
) -> Iterator[Run]:
    """Yield a run in a namespace of its own; all that it started ends with the block."""
    namespace = f"run-{secrets.token_hex(4)}"
    make_namespace(ground.server, namespace)
    kube = Kube.admin(ground.server, namespace=namespace)
    directory.mkdir()
    journal = Journal(directory / "faults", target=target)
    ground.kubelet.switches.environment[namespace] = journal.variables
    operator = RestartedOperator(ground, directory, namespace=namespace, variables=journal.variables)
    traffic = Traffic(kube, ground.kubelet)
    run = Run(
        stage=Stage(kube=kube, kubelet=ground.kubelet, operator=operator),
        journal=journal,
        operator=operator,
        traffic=traffic,
        expected=expected,
    )
    operator.start()
    traffic.start()
    try:
        yield run
    finally:
        traffic.stop()
        operator.stop()
        kube.delete("Namespace", namespace)
        kube.close()
