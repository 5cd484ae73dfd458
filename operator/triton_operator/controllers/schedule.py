"""Which key is worked on next: the queue's state and rules, without tasks and without a clock."""

from __future__ import annotations

import dataclasses
import heapq
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST_BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 300.0
CHANGED_BACKOFF_SECONDS = 1.0


@dataclasses.dataclass(frozen=True)
class Key:
    """One object to reconcile; `kind` is the resource's kind, as in `InferenceModel`."""

    kind: str
    namespace: str
    name: str


class Schedule:
    """Keys that wait, keys that run, and timers.

    A key waits at most once and runs at most once at a time; added while it runs, it runs
    again afterwards. A timer stands apart from that: it adds its key when it is due, and a run
    in between doesn't cancel it, so nothing that was asked for is ever forgotten.
    """

    def __init__(self, random: Callable[[], float]) -> None:
        """Take jitter from `random`, which returns numbers in [0, 1)."""
        self._random = random
        self._waiting: dict[Key, float] = {}  # since when; in the order of arrival
        self._running: set[Key] = set()
        self._again: dict[Key, float] = {}
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, int, Key]] = []  # may hold entries that `_due` no longer agrees with
        self._count = 0
        self._failures: dict[Key, int] = {}

    @property
    def depth(self) -> int:
        """Return how many keys wait for a worker."""
        return len(self._waiting)

    @property
    def running(self) -> frozenset[Key]:
        """Return the keys that are being worked on."""
        return frozenset(self._running)

    def failures(self, key: Key) -> int:
        """Return how often a key has failed in a row."""
        return self._failures.get(key, 0)

    def add(self, key: Key, *, now: float) -> None:
        """Let a key be worked on as soon as a worker is free."""
        (self._again if key in self._running else self._waiting).setdefault(key, now)

    def add_at(self, key: Key, *, due: float) -> None:
        """Add a key at a later time; of two timers of a key the earlier stays."""
        if due >= self._due.get(key, float("inf")):
            return
        self._due[key] = due
        self._count += 1
        heapq.heappush(self._heap, (due, self._count, key))

    def next_due(self) -> float | None:
        """Return when the next timer is due, or None without one."""
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def take(self, *, now: float) -> tuple[Key, float] | None:
        """Hand out the key that has waited longest and its seconds of waiting, or None."""
        while (due := self.next_due()) is not None and due <= now:
            key = heapq.heappop(self._heap)[2]
            del self._due[key]
            self.add(key, now=due)
        if not self._waiting:
            return None
        key = next(iter(self._waiting))
        since = self._waiting.pop(key)
        self._running.add(key)
        return key, max(0.0, now - since)

    def succeeded(self, key: Key, *, now: float, again_after: float | None = None) -> None:
        """Take a key back from its worker, and set the timer that the worker asks for."""
        self._failures.pop(key, None)
        if again_after is not None:
            self.add_at(key, due=now + again_after)
        self._finish(key)

    def failed(self, key: Key, *, now: float) -> float:
        """Take a key back from a worker that failed; return the seconds until the next try.

        Between half and all of 0.5 s, doubled with each failure in a row, 5 minutes at most. A
        key that was added meanwhile is tried within a second, for the change may have mended it;
        not at once, for it may be the failing run's own doing.
        """
        failures = self._failures[key] = self.failures(key) + 1
        longest = min(LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0 ** min(failures - 1, 32))
        seconds = longest * (0.5 + self._random() / 2)
        if self._again.pop(key, None) is not None:
            seconds = min(seconds, CHANGED_BACKOFF_SECONDS)
        self.add_at(key, due=now + seconds)
        self._finish(key)
        return seconds

    def _finish(self, key: Key) -> None:
        self._running.remove(key)
        if key in self._again:
            self._waiting[key] = self._again.pop(key)
