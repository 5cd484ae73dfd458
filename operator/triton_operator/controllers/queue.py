"""The queue between events and reconcilers: deduplicated, bounded, one worker per key."""

from __future__ import annotations

import asyncio
import logging
import random as _random
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from triton_operator.clients.errors import ClientError
from triton_operator.controllers.schedule import Key, Schedule
from triton_operator.logs import about

__all__ = ["Key", "Queue", "QueueObserver", "Reconcile"]

log = logging.getLogger(__name__)

Reconcile = Callable[[Key], Awaitable[float | None]]
"""Bring one object to what it should be; the number returned asks for another look after so many seconds."""


class QueueObserver(Protocol):
    """Who is told what the queue does; `metrics.Metrics` is one."""

    def queue_waited(self, kind: str, seconds: float) -> None:
        """Note how long a key waited for a worker."""

    def reconciled(self, kind: str, outcome: str, seconds: float) -> None:
        """Note the end of a reconcile: `done`, `again` (a number was returned) or `error`."""

    def retried(self, kind: str) -> None:
        """Note that a key will be tried again after a failure."""


class Queue:
    """Keys to reconcile, and the workers that do it.

    `workers` bounds how many keys are worked on at once, `limit_seconds` how long one may take.
    """

    def __init__(
        self,
        *,
        workers: int = 8,
        limit_seconds: float = 300,
        observer: QueueObserver | None = None,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = _random.random,
    ) -> None:
        """Make an empty queue; keys may be added before it runs."""
        self._schedule = Schedule(random)
        self._slots = asyncio.Semaphore(workers)
        self._limit = limit_seconds
        self._observer = observer
        self._clock = clock
        self._changed = asyncio.Event()

    @property
    def depth(self) -> int:
        """Return how many keys wait for a worker."""
        return self._schedule.depth

    @property
    def running(self) -> frozenset[Key]:
        """Return the keys that are being worked on."""
        return self._schedule.running

    def add(self, key: Key) -> None:
        """Let a key be reconciled soon; one that waits already is not added twice."""
        self._schedule.add(key, now=self._clock())
        self._changed.set()

    def add_after(self, key: Key, seconds: float) -> None:
        """Add a key later; of two timers of a key the earlier stays."""
        self._schedule.add_at(key, due=self._clock() + seconds)
        self._changed.set()

    async def run(self, reconcile: Reconcile) -> None:
        """Work until cancelled (once in a queue's life), then cancel what is under way and await its end."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                await self._slots.acquire()
                key, waited = await self._take()
                if self._observer:
                    self._observer.queue_waited(key.kind, waited)
                tasks.create_task(self._work(key, reconcile), name=f"{key.kind} {key.namespace}/{key.name}")

    async def _take(self) -> tuple[Key, float]:
        while True:
            self._changed.clear()
            taken = self._schedule.take(now=self._clock())
            if taken is not None:
                return taken
            due = self._schedule.next_due()
            try:
                async with asyncio.timeout(None if due is None else max(0.0, due - self._clock())):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _work(self, key: Key, reconcile: Reconcile) -> None:
        started = self._clock()
        try:
            async with asyncio.timeout(self._limit):
                again_after = await reconcile(key)
        except asyncio.CancelledError:
            if self._is_cancelled():
                raise
            # Something that the reconcile awaited was cancelled, not this task: a failure like any other.
            self._failed(key, RuntimeError("an awaited task was cancelled"), started)
        except Exception as error:  # noqa: BLE001 - whatever it is, the key must be tried again
            self._failed(key, error, started)
        else:
            self._schedule.succeeded(key, now=self._clock(), again_after=again_after)
            self._observe(key, "done" if again_after is None else "again", started)
        finally:
            self._slots.release()
            self._changed.set()

    def _failed(self, key: Key, error: Exception, started: float) -> None:
        seconds = self._schedule.failed(key, now=self._clock())
        self._observe(key, "error", started)
        if self._observer:
            self._observer.retried(key.kind)
        expected = isinstance(error, ClientError | TimeoutError | OSError)
        log.log(
            logging.WARNING if expected else logging.ERROR,
            "reconcile failed, next try in %.1f s: %s",
            seconds,
            str(error) or type(error).__name__,
            exc_info=None if expected else error,
            extra=about(key.kind, key.namespace, key.name, failures=self._schedule.failures(key)),
        )

    def _observe(self, key: Key, outcome: str, started: float) -> None:
        if self._observer:
            self._observer.reconciled(key.kind, outcome, self._clock() - started)

    @staticmethod
    def _is_cancelled() -> bool:
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0
