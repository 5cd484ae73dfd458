"""One Triton pod and the task that brings it to what its server's tree says, and keeps it there."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from triton_operator.clients.triton import ModelVersion, TritonError, TritonRefused
from triton_operator.logs import about
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
from triton_operator.plan.pods import RunningContainer

log = logging.getLogger(__name__)

MOVING_SECONDS = 0.2
"""How soon to look again while a model is on its way up or down."""

UNREACHABLE_SECONDS = (0.5, 10.0)
LOAD_RETRY_SECONDS = (2.0, 300.0)
"""First and longest pause after failures, which double in between."""


class Triton(Protocol):
    """What a converger asks of `clients.triton.Triton`."""

    async def index(self) -> tuple[ModelVersion, ...]:
        """Return the repository index."""

    async def config_fingerprint(self, model: str) -> str | None:
        """Return the fingerprint of the configuration that a loaded model runs."""

    async def load(self, model: str, config: str, *, timeout: float) -> None:  # noqa: ASYNC109 - gRPC keeps it
        """Load a model with this configuration."""

    async def unload(self, model: str) -> None:
        """Begin to unload a model."""

    async def version_ready(self, model: str, version: int) -> bool:
        """Tell whether a version answers."""

    async def close(self) -> None:
        """Close the connection."""


@dataclasses.dataclass(frozen=True)
class ModelReport:
    """What a pod does with one model."""

    ready: frozenset[int]
    current: bool
    trouble: str = ""


@dataclasses.dataclass(frozen=True)
class PodReport:
    """What a pod does; `trouble` says why it can't be asked.

    `loaded` are all models that it holds or is about to, and None until it was asked.
    """

    pod: str
    uid: str
    ip: str
    asked: bool = True
    loaded: frozenset[str] | None = None
    models: Mapping[str, ModelReport] = dataclasses.field(default_factory=dict)
    trouble: str = ""


@dataclasses.dataclass
class _Failure:
    """A step that failed: how often, why, and when it may be taken again."""

    step: Step
    count: int
    reason: str
    retry_at: float


class Converger:
    """Compares what a pod serves with what it must, and acts on the difference.

    It looks when told of a change, when the container was restarted, and every
    `interval_seconds`. A load that fails is tried again with growing pauses.
    """

    def __init__(
        self,
        container: RunningContainer,
        *,
        triton: Triton,
        namespace: str,
        interval_seconds: float,
        load_timeout_seconds: float,
        on_report: Callable[[], None],
        on_load: Callable[[str, str, float], None],
    ) -> None:
        self.container = container
        self.report = PodReport(
            pod=container.pod, uid=container.uid, ip=container.ip, asked=False, trouble="not asked yet"
        )
        self._triton = triton
        self._namespace = namespace
        self._interval = interval_seconds
        self._load_timeout = load_timeout_seconds
        self._on_report = on_report
        self._on_load = on_load
        self._desired: Desired = {}
        self._changed = asyncio.Event()
        self._failures: dict[str, _Failure] = {}
        self._unreachable = 0

    def update(self, container: RunningContainer, desired: Desired) -> None:
        """Say what the pod must serve, and which incarnation of its container runs."""
        if container.container_id != self.container.container_id:
            self._failures.clear()
            self.report = dataclasses.replace(
                self.report, loaded=None, models={}, trouble="the container was restarted"
            )
        if (container, desired) != (self.container, self._desired):
            self.container, self._desired = container, desired
            self._changed.set()

    async def run(self) -> None:
        """Converge until cancelled."""
        while True:
            self._changed.clear()
            pause = await self._look()
            try:
                async with asyncio.timeout(pause):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def close(self) -> None:
        """Close the connection, when `run` has ended or never began."""
        await self._triton.close()

    async def _look(self) -> float:
        """Converge once and return the seconds until the next look."""
        desired = self._desired
        try:
            pause = await self._converge(desired)
        except TritonError as error:
            return self._not_asked(error.reason)
        except Exception as error:  # whatever it is, the pod must be looked at again
            log.exception("converger failed", extra=about("Pod", self._namespace, self.container.pod))
            return self._not_asked(f"{type(error).__name__}: {error}")
        self._unreachable = 0
        return pause

    def _not_asked(self, trouble: str) -> float:
        self._unreachable += 1
        self._tell(dataclasses.replace(self.report, asked=True, loaded=None, models={}, trouble=trouble))
        return _pause(UNREACHABLE_SECONDS, self._unreachable)

    async def _converge(self, desired: Desired) -> float:
        index, fingerprints = await self._observe(desired)
        todo = [step for step in steps(desired, index, fingerprints) if self._is_due(step)]
        for step in todo:
            await self._take(step)
        if todo:
            index, fingerprints = await self._observe(desired)
        left = steps(desired, index, fingerprints)
        for step in left:
            if step in todo and self._is_due(step):
                self._failed(step, "it was answered, but the pod still serves something else")
        self._failures = {s.model: self._failures[s.model] for s in left if s.model in self._failures}
        self._tell(self._reported(desired, index, fingerprints))
        if any(self._is_due(step) for step in left):
            return MOVING_SECONDS
        return min([self._interval, *(self._wait_of(step) for step in left)])

    async def _observe(self, desired: Desired) -> tuple[list[IndexRow], dict[str, str | None]]:
        rows = await self._triton.index()
        index = [IndexRow(row.model, row.version, row.state, row.reason) for row in rows]
        loaded = sorted({row.model for row in index if row.state == "READY" and row.model in desired})
        fingerprints: dict[str, str | None] = {}
        for model in loaded:
            try:
                fingerprints[model] = await self._triton.config_fingerprint(model)
            except TritonRefused:  # unloaded since the index was read
                fingerprints[model] = None
        return index, fingerprints

    async def _take(self, step: Step) -> None:
        try:
            if isinstance(step, Unload):
                await self._timed("unload", step.model, self._triton.unload(step.model))
            elif isinstance(step, Load):
                await self._load(step.model, step.desired)
        except TritonRefused as error:
            self._failed(step, error.reason)

    async def _load(self, model: str, desired: DesiredModel) -> None:
        load = self._triton.load(model, desired.config, timeout=self._load_timeout)
        await self._timed("load", model, load)
        await self._confirm(model, desired)

    def _failed(self, step: Step, reason: str) -> None:
        before = self._failures.get(step.model)
        count = before.count + 1 if before is not None and before.step == step else 1
        retry_at = time.monotonic() + _pause(LOAD_RETRY_SECONDS, count)
        self._failures[step.model] = _Failure(step, count, reason, retry_at)

    async def _confirm(self, model: str, desired: DesiredModel) -> None:
        """Ask every version itself: a load may answer 200 and have done nothing."""
        missing = [v for v in sorted(desired.versions) if not await self._triton.version_ready(model, v)]
        if missing:
            numbers = ", ".join(map(str, missing))
            raise TritonRefused(f"the load was answered, but version {numbers} is not ready")

    async def _timed(self, operation: str, model: str, call: Awaitable[None]) -> None:
        started = time.monotonic()
        result = "done"
        try:
            await call
        except TritonError as error:
            result = "refused" if isinstance(error, TritonRefused) else "unreachable"
            raise
        finally:
            seconds = time.monotonic() - started
            self._on_load(operation, result, seconds)
            log.log(
                logging.INFO if result == "done" else logging.WARNING,
                "%s of model %s: %s in %.2f s",
                operation,
                model,
                result,
                seconds,
                extra=about("Pod", self._namespace, self.container.pod),
            )

    def _is_due(self, step: Step) -> bool:
        return self._wait_of(step) <= 0

    def _wait_of(self, step: Step) -> float:
        """Return the seconds until a step may be taken: one that failed waits for its turn."""
        if isinstance(step, Wait):
            return MOVING_SECONDS
        failure = self._failures.get(step.model)
        if failure is None or failure.step != step:
            return 0.0
        return failure.retry_at - time.monotonic()

    def _reported(
        self, desired: Desired, index: list[IndexRow], fingerprints: Mapping[str, str | None]
    ) -> PodReport:
        models = {
            model: ModelReport(
                ready=ready_versions(index, model),
                current=fingerprints.get(model) == wanted.fingerprint,
                trouble=self._trouble(model, wanted),
            )
            for model, wanted in desired.items()
        }
        loaded = frozenset(row.model for row in index if row.state in LOADED | MOVING)
        container = self.container
        return PodReport(pod=container.pod, uid=container.uid, ip=container.ip, loaded=loaded, models=models)

    def _trouble(self, model: str, wanted: DesiredModel) -> str:
        failure = self._failures.get(model)
        if failure is None or failure.step != Load(model, wanted):
            return ""
        return f"load failed ({failure.count} times): {failure.reason}"

    def _tell(self, report: PodReport) -> None:
        if report != self.report:
            self.report = report
            self._on_report()


def _pause(limits: tuple[float, float], failures: int) -> float:
    first, longest = limits
    return float(min(longest, first * 2 ** min(failures - 1, 16)))
