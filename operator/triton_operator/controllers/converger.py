"""One Triton pod and the task that brings it to what its server's tree says, and keeps it there."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
import time
from collections.abc import Awaitable, Mapping
from collections.abc import Set as AbstractSet
from typing import Protocol

from triton_operator.clients.triton import (
    ModelVersion,
    TritonError,
    TritonRefused,
    TritonTimeout,
    TritonUnreachable,
)
from triton_operator.logs import about
from triton_operator.plan import converge
from triton_operator.plan.converge import (
    LOADED,
    MOVING,
    Desired,
    DesiredModel,
    IndexRow,
    Load,
    Step,
    Unload,
    Wait,
    ready_versions,
    steps,
)
from triton_operator.plan.loads import Failure, Fault
from triton_operator.plan.pods import RunningContainer

log = logging.getLogger(__name__)

MOVING_SECONDS = 0.2
"""How soon to look again while a model is on its way up or down."""

UNREACHABLE_SECONDS = (0.5, 10.0)
STARTING_SECONDS = 1.0
"""Longest pause before a container that is not ready yet is asked again: it may open its port any moment."""

SILENT_SECONDS = 5.0
"""A pod that could not be asked for so long is told as silent."""

LOAD_RETRY_SECONDS = (2.0, 300.0)
"""First and longest pause after failures, which double in between."""

UNNAMED = "triton"
"""What a Triton calls itself that was started without `--id`."""


class Triton(Protocol):
    """What a converger asks of `clients.triton.Triton`."""

    async def name(self) -> str:
        """Return how the server calls itself."""

    async def index(self) -> tuple[ModelVersion, ...]:
        """Return the repository index."""

    async def config_fingerprint(self, model: str) -> str | None:
        """Return the fingerprint of the configuration that a loaded model runs."""

    async def load(
        self,
        model: str,
        config: str,
        *,
        timeout: float,  # noqa: ASYNC109 - gRPC keeps it
        versions: AbstractSet[int] | None = None,
    ) -> None:
        """Load a model with this configuration, or only these of its versions."""

    async def unload(self, model: str) -> None:
        """Begin to unload a model."""

    async def version_ready(self, model: str, version: int) -> bool:
        """Tell whether a version answers."""

    async def close(self) -> None:
        """Close the connection."""


@dataclasses.dataclass(frozen=True)
class ModelReport:
    """What a pod does with one model: versions that answer, and those that it should have and lacks.

    `given_up` is the fault for which they are not loaded any more.
    """

    ready: frozenset[int]
    current: bool
    lacking: frozenset[int] = frozenset()
    trouble: str = ""
    given_up: Fault | None = None


@dataclasses.dataclass(frozen=True)
class PodReport:
    """What a pod does; `trouble` says why it can't be asked, `silent` that this has been so for a while.

    `loaded` are all models that it holds or is about to, and None until it was asked.
    """

    pod: str
    uid: str
    ip: str
    asked: bool = True
    loaded: frozenset[str] | None = None
    models: Mapping[str, ModelReport] = dataclasses.field(default_factory=dict)
    trouble: str = ""
    silent: bool = False


class Observer(Protocol):
    """Who is told what a converger sees and does."""

    def reported(self) -> None:
        """Note that the report has changed."""

    def loaded(self, operation: str, result: str, seconds: float) -> None:
        """Note a load or unload: `done`, `refused` or `unreachable`."""

    def drifted(self, pod: str, what: str) -> None:
        """Note that a pod, right before, was found changed by another hand."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """How a server's pods load: the longest a load may take, and who may load at the same time."""

    timeout_seconds: float
    slots: asyncio.Semaphore


class Converger:
    """Compares what a pod serves with what it must, and acts on the difference.

    It looks when told of a change, when the container was restarted, when a load or unload has
    ended, and every `interval_seconds`. Models are loaded side by side, so that one that takes
    minutes holds up no other; a load that fails is tried again with growing pauses, and not for ever.
    """

    def __init__(
        self,
        container: RunningContainer,
        *,
        triton: Triton,
        namespace: str,
        interval_seconds: float,
        limits: Limits,
        observer: Observer,
    ) -> None:
        self.container = container
        self.limits = limits
        self.report = PodReport(
            pod=container.pod, uid=container.uid, ip=container.ip, asked=False, trouble="not asked yet"
        )
        self._triton = triton
        self._namespace = namespace
        self._interval = interval_seconds
        self._observer = observer
        self._desired: Desired = {}
        self._changed = asyncio.Event()
        self._acting: dict[str, asyncio.Task[None]] = {}
        self._done: dict[str, Step] = {}
        self._failures: dict[str, tuple[Failure, float]] = {}  # with the time of the next try
        self._cut: dict[str, tuple[Load, str]] = {}  # loads without an answer, and the container asked
        self._unreachable = 0
        self._silent_since: float | None = None
        self._right = False

    def update(self, container: RunningContainer, desired: Desired) -> None:
        """Say what the pod must serve, and which incarnation of its container runs."""
        if (container, desired) == (self.container, self._desired):
            return
        if container.container_id != self.container.container_id:
            self._restarted(container)
        if container.ready and not self.container.ready:
            # what it did while it started says nothing any more
            self._unreachable, self._silent_since = 0, None
            self.report = dataclasses.replace(self.report, silent=False)
        if desired != self._desired:
            self._right = False
            self.report = dataclasses.replace(
                self.report, models=_outdated(self.report.models, self._desired, desired)
            )
        self.container, self._desired = container, desired
        self._changed.set()

    async def run(self) -> None:
        """Converge until cancelled."""
        try:
            while True:
                self._changed.clear()
                pause = await self._look()
                try:
                    async with asyncio.timeout(pause):
                        await self._changed.wait()
                except TimeoutError:
                    continue
        finally:
            await self._abandon()

    async def close(self) -> None:
        """Close the connection, when `run` has ended or never began."""
        await self._triton.close()

    def _restarted(self, container: RunningContainer) -> None:
        """Forget what the former container did, but not what it died of."""
        self.report = dataclasses.replace(
            self.report, loaded=None, models={}, trouble="the container was restarted"
        )
        self._right = False
        self._failures = {m: f for m, f in self._failures.items() if f[0].fault is Fault.CRASHED}
        self._done.clear()
        for step, asked in self._cut.values():
            if asked != container.container_id:
                self._failed(step, Fault.CRASHED, "the container ended while it loaded the model")
        self._cut.clear()

    async def _abandon(self) -> None:
        tasks = list(self._acting.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _look(self) -> float:
        """Converge once and return the seconds until the next look."""
        desired, container = self._desired, self.container
        try:
            await self._identify(container)
            pause = await self._converge(desired)
        except TritonError as error:
            return self._not_asked(error.reason)
        except Exception as error:  # whatever it is, the pod must be looked at again
            log.exception("converger failed", extra=about("Pod", self._namespace, self.container.pod))
            return self._not_asked(f"{type(error).__name__}: {error}")
        self._unreachable, self._silent_since = 0, None
        return pause

    async def _identify(self, container: RunningContainer) -> None:
        """Make sure that the address is still this pod's."""
        name = await self._triton.name()
        if name not in (container.pod, UNNAMED):
            raise TritonUnreachable(f"at {container.ip} answers {name}: the address is another pod's by now")

    def _not_asked(self, trouble: str) -> float:
        self._unreachable += 1
        now = time.monotonic()
        self._silent_since = now if self._silent_since is None else self._silent_since
        silent = now - self._silent_since >= SILENT_SECONDS
        self._tell(
            dataclasses.replace(
                self.report, asked=True, loaded=None, models={}, trouble=trouble, silent=silent
            )
        )
        pause = _pause(UNREACHABLE_SECONDS, self._unreachable)
        return pause if self.container.ready else min(pause, STARTING_SECONDS)

    async def _converge(self, desired: Desired) -> float:
        busy = frozenset(self._acting)  # what they do may end while the pod is asked: judged at the next look
        index, fingerprints = await self._observe(desired)
        left = steps(desired, index, fingerprints)
        self._settle(left, index, busy)
        self._right = not left and not busy and desired is self._desired
        for step in left:
            if step.model not in busy and self._wait_of(step) <= 0 and not isinstance(step, Wait):
                self._acting[step.model] = asyncio.create_task(self._act(step))
        self._tell(self._reported(desired, index, fingerprints))
        return min([self._interval, *(self._wait_of(step) for step in left)])

    async def _observe(self, desired: Desired) -> tuple[list[IndexRow], dict[str, str | None]]:
        index = await self._index()
        loaded = sorted({row.model for row in index if row.state == "READY" and desired.get(row.model)})
        fingerprints: dict[str, str | None] = {}
        for model in loaded:
            try:
                fingerprints[model] = await self._triton.config_fingerprint(model)
            except TritonRefused:  # unloaded since the index was read
                fingerprints[model] = None
        return index, fingerprints

    async def _index(self) -> list[IndexRow]:
        return [IndexRow(r.model, r.version, r.state, r.reason) for r in await self._triton.index()]

    def _settle(self, left: list[Step], index: list[IndexRow], busy: frozenset[str]) -> None:
        """Judge what was done since the last look by what is left to do."""
        for step in left:
            if step.model not in busy and self._done.get(step.model) == step:
                self._failed(step, Fault.FAILED, _NO_EFFECT, passing=True)
        models = {step.model for step in left} | busy
        self._done = {m: done for m, done in self._done.items() if m in busy}
        self._failures = {m: f for m, f in self._failures.items() if m in models}
        self._cut = {m: c for m, c in self._cut.items() if m in models}
        if self._right and left:
            for step in left:
                self._observer.drifted(self.container.pod, converge.differences(step, index))

    async def _act(self, step: Step) -> None:
        asked = self.container.container_id
        try:
            if isinstance(step, Unload):
                await self._timed("unload", step.model, self._triton.unload(step.model))
            elif isinstance(step, Load):
                async with self.limits.slots:
                    if self._desired.get(step.model) != step.desired:
                        return  # overtaken while it waited for its turn
                    await self._load(step)
            self._done[step.model] = step
        except TritonTimeout:
            seconds = self.limits.timeout_seconds
            self._failed(step, Fault.TIMEOUT, f"not loaded after {seconds:g} s (spec.loads.timeoutSeconds)")
        except TritonRefused as error:
            self._failed(step, Fault.FAILED, error.reason, passing=_may_pass(error.reason))
        except TritonUnreachable:
            self._lost(step, asked)
        except Exception as error:  # whatever it is, it must not be repeated at once
            log.exception("converger failed", extra=about("Pod", self._namespace, self.container.pod))
            self._failed(step, Fault.FAILED, f"{type(error).__name__}: {error}")
        finally:
            self._acting.pop(step.model, None)
            self._changed.set()

    async def _load(self, step: Load) -> None:
        try:
            await self._timed("load", step.model, self._call(step.model, step.desired))
        except TritonRefused:
            await self._rescue(step.model, step.desired)
            raise
        await self._confirm(step.model, step.desired)

    def _call(
        self, model: str, wanted: DesiredModel, versions: AbstractSet[int] | None = None
    ) -> Awaitable[None]:
        timeout = self.limits.timeout_seconds
        return self._triton.load(model, wanted.config, timeout=timeout, versions=versions)

    async def _rescue(self, model: str, wanted: DesiredModel) -> None:
        """Load the versions that can be, when one that can't has kept all of them out.

        Triton loads all or none when nothing of a model is loaded yet, as after a container's start.
        """
        versions = converge.loadable(await self._index(), model, wanted.versions)
        if versions:
            try:
                await self._timed("load", model, self._call(model, wanted, versions))
            except TritonRefused as error:
                log.debug("no version of model %s can be loaded: %s", model, error)

    async def _confirm(self, model: str, desired: DesiredModel) -> None:
        """Ask every version itself: a load may answer 200 and have done nothing."""
        missing = [v for v in sorted(desired.versions) if not await self._triton.version_ready(model, v)]
        if missing:
            numbers = ", ".join(map(str, missing))
            raise TritonRefused(f"{_NOT_READY} {numbers} is not ready")

    async def _timed(self, operation: str, model: str, call: Awaitable[None]) -> None:
        started = time.monotonic()
        try:
            await call
        except TritonError as error:
            result = "refused" if isinstance(error, TritonRefused) else "unreachable"
            self._note(operation, model, result, time.monotonic() - started)
            raise
        self._note(operation, model, "done", time.monotonic() - started)

    def _note(self, operation: str, model: str, result: str, seconds: float) -> None:
        self._observer.loaded(operation, result, seconds)
        log.log(
            logging.INFO if result == "done" else logging.WARNING,
            "%s of model %s: %s in %.2f s",
            operation,
            model,
            result,
            seconds,
            extra=about("Pod", self._namespace, self.container.pod),
        )

    def _failed(self, step: Step, fault: Fault, message: str, *, passing: bool = False) -> None:
        before = self._failures.get(step.model)
        if before is not None and before[0].step == step:
            failure = before[0].again(fault, message, passing=passing)
        else:
            failure = Failure(step, fault, message, passing=passing)
        self._failures[step.model] = (failure, time.monotonic() + _pause(LOAD_RETRY_SECONDS, failure.count))

    def _lost(self, step: Step, asked: str) -> None:
        """Note that a load got no answer; if the container has ended by it, that will be seen."""
        if not isinstance(step, Load):
            return
        if asked == self.container.container_id:
            self._cut[step.model] = (step, asked)
        else:
            self._failed(step, Fault.CRASHED, "the container ended while it loaded the model")

    def _wait_of(self, step: Step) -> float:
        """Return the seconds until a step may be taken: one that failed waits for its turn."""
        if isinstance(step, Wait):
            return MOVING_SECONDS
        found = self._failures.get(step.model)
        if step.model in self._acting:
            return math.inf  # its end is told
        if found is None or found[0].step != step:
            return 0.0
        return math.inf if found[0].given_up else max(0.0, found[1] - time.monotonic())

    def _reported(
        self, desired: Desired, index: list[IndexRow], fingerprints: Mapping[str, str | None]
    ) -> PodReport:
        models = {
            model: self._model_report(model, wanted, index, fingerprints.get(model))
            for model, wanted in desired.items()
            if wanted is not None
        }
        loaded = frozenset(row.model for row in index if row.state in LOADED | MOVING)
        container = self.container
        return PodReport(pod=container.pod, uid=container.uid, ip=container.ip, loaded=loaded, models=models)

    def _model_report(
        self, model: str, wanted: DesiredModel, index: list[IndexRow], fingerprint: str | None
    ) -> ModelReport:
        found = self._failures.get(model)
        failure = found[0] if found is not None and found[0].step == Load(model, wanted) else None
        ready = ready_versions(index, model)
        return ModelReport(
            ready=ready,
            lacking=wanted.versions - ready,
            current=fingerprint == wanted.fingerprint,
            trouble=str(failure) if failure is not None else "",
            given_up=failure.fault if failure is not None and failure.given_up else None,
        )

    def _tell(self, report: PodReport) -> None:
        if report != self.report:
            self.report = report
            self._observer.reported()


_NOT_READY = "the load was answered, but version"
_NO_EFFECT = "it was answered, but the pod still serves something else"
_POLL = "failed to poll from model repository"
_LABELS = "failed to open text file for read"
_MAY_PASS = (_NOT_READY, _POLL, _LABELS)
"""A network volume may show late what was written: Triton then finds no model, or nothing new."""


def _outdated(models: Mapping[str, ModelReport], before: Desired, after: Desired) -> dict[str, ModelReport]:
    """Return what a pod does, told as not current where another configuration is wanted now."""
    changed = {m for m in models if _fingerprint(before.get(m)) != _fingerprint(after.get(m))}
    return {m: dataclasses.replace(r, current=r.current and m not in changed) for m, r in models.items()}


def _fingerprint(wanted: DesiredModel | None) -> str | None:
    return wanted.fingerprint if wanted is not None else None


def _may_pass(reason: str) -> bool:
    return any(sign in reason for sign in _MAY_PASS)


def _pause(limits: tuple[float, float], failures: int) -> float:
    first, longest = limits
    return float(min(longest, first * 2 ** min(failures - 1, 16)))
