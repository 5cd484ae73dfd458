"""One writer: the operator works only while it holds a Lease.

The API server's own clock plays no part: a lease is taken over when it has not changed for its
duration on this process's clock, whatever the clocks of both holders say.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
import random
import time
from typing import TYPE_CHECKING, NoReturn

from triton_operator.clients.kube import LEASE, AlreadyExists, Conflict, Kube, KubeError, NotFound, Object

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)


class LeaseLost(Exception):
    """Another process may hold the lease now: this one must end, and at once."""


class Lease:
    """A Lease object that at most one process holds.

    A holder renews every `renew_seconds`; when that has failed for `deadline_seconds` it gives
    up, before others may take over after `duration_seconds`. `identity` names the holder: the
    pod's name will do, since its earlier process has ended when a later one starts.
    """

    def __init__(
        self,
        kube: Kube,
        *,
        namespace: str,
        name: str,
        identity: str,
        owner: Object | None = None,
        duration_seconds: float = 15,
        deadline_seconds: float = 10,
        renew_seconds: float = 4,
        retry_seconds: float = 2,
        on_change: Callable[[bool], None] | None = None,
    ) -> None:
        """Make no request yet; `owner` is an owner reference, so that the Lease goes with it."""
        self._kube = kube
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._owner = owner
        self._duration = duration_seconds
        self._deadline = deadline_seconds
        self._renew = renew_seconds
        self._retry = retry_seconds
        self._on_change = on_change or (lambda _held: None)
        self._held: Object | None = None
        self._renewed = 0.0

    @property
    def held(self) -> bool:
        """Return whether this process holds the lease."""
        return self._held is not None

    async def acquire(self) -> None:
        """Wait until this process holds the lease."""
        seen, since, told = "", 0.0, ""
        while True:
            with _unanswered(self._name):
                lease = await self._kube.get(LEASE, self._namespace, self._name)
                now = time.monotonic()
                version = "" if lease is None else lease["metadata"]["resourceVersion"]
                if version != seen:
                    seen, since = version, now
                if lease is None or self._is_free(lease, unchanged=now - since):
                    await self._take(lease)
                    return
                holder = lease["spec"]["holderIdentity"]
                if holder != told:
                    told = holder
                    log.info("waiting for the lease %s, held by %s", self._name, holder)
            await asyncio.sleep(self._retry * random.uniform(1, 1.2))  # noqa: S311 - jitter

    async def hold(self) -> NoReturn:
        """Renew the lease for as long as it can be renewed.

        Raises:
            LeaseLost: another took it, or it could not be renewed in time.
        """
        while self._held is not None:
            await asyncio.sleep(max(0.0, self._renewed + self._renew - time.monotonic()))
            await self._renew_once()
        raise LeaseLost(f"the lease {self._name} is not held")

    async def release(self) -> None:
        """Let go of the lease, so that the next can take it at once; nothing to do without it."""
        lease, self._held = self._held, None
        if lease is None:
            return
        self._on_change(False)
        with contextlib.suppress(KubeError):  # it runs out by itself
            await self._write(lease, holder="", duration=1)

    def _is_free(self, lease: Object, *, unchanged: float) -> bool:
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity")
        return not holder or holder == self._identity or unchanged > float(spec["leaseDurationSeconds"])

    async def _take(self, lease: Object | None) -> None:
        started = time.monotonic()
        if lease is None:
            lease = await self._create()
        else:
            spec = lease.get("spec") or {}
            another = spec.get("holderIdentity") != self._identity
            spec = {**spec, "acquireTime": _now()}
            spec["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + another
            lease = await self._write({**lease, "spec": spec}, holder=self._identity, duration=self._duration)
        self._held, self._renewed = lease, started
        self._on_change(True)
        log.info("holding the lease %s as %s", self._name, self._identity)

    async def _create(self) -> Object:
        metadata: Object = {"namespace": self._namespace, "name": self._name}
        if self._owner:
            metadata["ownerReferences"] = [self._owner]
        spec = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": int(self._duration),
            "acquireTime": _now(),
            "renewTime": _now(),
            "leaseTransitions": 0,
        }
        return await self._kube.create(LEASE, {"metadata": metadata, "spec": spec})

    async def _renew_once(self) -> None:
        """Renew, trying again until the deadline; give up at once when another has taken it."""
        while self._held is not None:
            started = time.monotonic()
            # late or not, try: whoever took the lease meanwhile has changed it, and the server tells
            left = max(self._retry, self._renewed + self._deadline - started)
            try:
                async with asyncio.timeout(left):
                    self._held = await self._write(self._held, holder=self._identity, duration=self._duration)
                self._renewed = started
                return
            except (Conflict, NotFound) as error:
                await self._reread(error)
            except (KubeError, TimeoutError) as error:
                log.warning("the lease %s could not be renewed: %s", self._name, error or "no answer")
                if started + self._retry >= self._renewed + self._deadline:
                    self._lose(error)
                await asyncio.sleep(self._retry)

    async def _reread(self, error: KubeError) -> None:
        """Find out what a refused renewal means.

        A renewal whose answer was lost makes the next one a conflict, and so does a label that
        somebody put on the Lease: neither takes it from us.
        """
        try:
            lease = await self._kube.get(LEASE, self._namespace, self._name)
        except KubeError:
            await asyncio.sleep(self._retry)
            return
        if lease is None or lease["spec"].get("holderIdentity") != self._identity:
            self._lose(error)
        self._held = lease

    def _lose(self, error: BaseException) -> NoReturn:
        self._held = None
        self._on_change(False)
        raise LeaseLost(f"the lease {self._name} was lost: {error or 'no answer'}") from error

    async def _write(self, lease: Object, *, holder: str, duration: float) -> Object:
        spec = {
            **lease["spec"],
            "holderIdentity": holder,
            "renewTime": _now(),
            "leaseDurationSeconds": int(duration),
        }
        return await self._kube.replace(LEASE, {**lease, "spec": spec})


class _unanswered(contextlib.AbstractContextManager[None]):  # noqa: N801 - reads as a statement
    """Go on after an error of the API server; a lost race for the lease says nothing."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, Conflict | AlreadyExists | NotFound):
            return True
        if isinstance(error, KubeError):
            log.warning("the lease %s could not be read or taken: %s", self._name, error)
            return True
        return False


def _now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
