from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from triton_operator.clients.errors import ClientError
from triton_operator.controllers.queue import Key, Queue, Reconcile

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


def a_key(name: str = "a") -> Key:
    return Key("InferenceModel", "vision", name)


@contextlib.asynccontextmanager
async def running(queue: Queue, reconcile: Reconcile) -> AsyncIterator[None]:
    task = asyncio.create_task(queue.run(reconcile))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


class Recorder:
    """A reconciler that can be held, and an observer."""

    def __init__(self) -> None:
        self.runs: Counter[Key] = Counter()
        self.active: Counter[Key] = Counter()
        self.most_active = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.ran = asyncio.Condition()
        self.outcomes: list[str] = []
        self.retries = 0

    async def __call__(self, key: Key) -> float | None:
        self.active[key] += 1
        assert self.active[key] == 1, "two workers on one key"
        self.most_active = max(self.most_active, self.active.total())
        try:
            await self.gate.wait()
            self.runs[key] += 1
        finally:
            self.active[key] -= 1
        async with self.ran:
            self.ran.notify_all()
        return None

    async def has_run(self, key: Key, times: int) -> None:
        async with asyncio.timeout(5), self.ran:
            await self.ran.wait_for(lambda: self.runs[key] >= times)

    def queue_waited(self, kind: str, seconds: float) -> None:
        assert seconds >= 0

    def reconciled(self, kind: str, outcome: str, seconds: float) -> None:
        self.outcomes.append(outcome)

    def retried(self, kind: str) -> None:
        self.retries += 1


async def until(*, holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 - what is waited for knows nothing of the test
            await asyncio.sleep(0.001)


async def test_key_added_many_times_before_a_worker_is_free_runs_once() -> None:
    queue, recorder = Queue(), Recorder()
    for _ in range(5):
        queue.add(a_key())
    assert queue.depth == 1
    async with running(queue, recorder):
        await recorder.has_run(a_key(), 1)
        await asyncio.sleep(0.01)
    assert recorder.runs[a_key()] == 1


async def test_key_added_while_it_runs_is_run_again_afterwards() -> None:
    queue, recorder = Queue(), Recorder()
    recorder.gate.clear()
    async with running(queue, recorder):
        queue.add(a_key())
        await until(holds=lambda: queue.running == {a_key()})
        queue.add(a_key())
        queue.add(a_key())
        await asyncio.sleep(0.01)
        assert recorder.active[a_key()] == 1
        recorder.gate.set()
        await recorder.has_run(a_key(), 2)
        await asyncio.sleep(0.01)
    assert recorder.runs[a_key()] == 2


async def test_no_more_keys_run_at_once_than_there_are_workers() -> None:
    queue, recorder = Queue(workers=3), Recorder()
    recorder.gate.clear()
    keys = [a_key(str(n)) for n in range(20)]
    for key in keys:
        queue.add(key)
    async with running(queue, recorder):
        await until(holds=lambda: len(queue.running) == 3)
        await asyncio.sleep(0.01)
        assert (len(queue.running), queue.depth) == (3, 17)
        recorder.gate.set()
        for key in keys:
            await recorder.has_run(key, 1)
    assert recorder.most_active == 3


async def test_hanging_key_holds_up_no_other() -> None:
    queue, finished = Queue(workers=2), asyncio.Event()

    async def reconcile(key: Key) -> None:
        if key.name == "hangs":
            await asyncio.Event().wait()
        finished.set()

    queue.add(a_key("hangs"))
    queue.add(a_key("works"))
    async with running(queue, reconcile), asyncio.timeout(5):
        await finished.wait()


async def test_reconcile_that_takes_too_long_is_ended_and_tried_again() -> None:
    queue, runs = Queue(limit_seconds=0.02, random=lambda: 0.0), 0

    async def reconcile(_key: Key) -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            await asyncio.Event().wait()

    queue.add(a_key())
    async with running(queue, reconcile):
        await until(holds=lambda: runs == 2)


async def test_returned_number_asks_for_another_run() -> None:
    recorder = Recorder()
    queue, runs = Queue(observer=recorder), 0

    async def reconcile(_key: Key) -> float | None:
        nonlocal runs
        runs += 1
        return 0.02 if runs == 1 else None

    queue.add(a_key())
    async with running(queue, reconcile):
        await until(holds=lambda: recorder.outcomes == ["again", "done"])


async def test_key_added_for_later_runs_later() -> None:
    queue, recorder = Queue(), Recorder()
    async with running(queue, recorder):
        await asyncio.sleep(0)
        queue.add_after(a_key(), 0.05)
        await asyncio.sleep(0.02)
        assert not recorder.runs
        await recorder.has_run(a_key(), 1)


@pytest.mark.parametrize(
    ("error", "level", "traceback"),
    [
        (ClientError("the keeper does not answer"), logging.WARNING, False),
        (ZeroDivisionError("division by zero"), logging.ERROR, True),
    ],
)
async def test_failure_is_one_line_with_a_traceback_only_when_unexpected(
    caplog: pytest.LogCaptureFixture, error: Exception, level: int, *, traceback: bool
) -> None:
    recorder = Recorder()
    queue = Queue(observer=recorder)

    async def reconcile(_key: Key) -> None:
        raise error

    queue.add(a_key())
    with caplog.at_level(logging.INFO):
        async with running(queue, reconcile):
            await until(holds=lambda: recorder.outcomes == ["error"])
    (record,) = caplog.records
    assert record.levelno == level
    assert bool(record.exc_info) == traceback
    fields = vars(record)
    assert (fields["kind"], fields["namespace"], fields["object"]) == ("InferenceModel", "vision", "a")
    assert str(error) in record.getMessage()
    assert recorder.retries == 1


async def test_failed_key_is_tried_again() -> None:
    queue, runs = Queue(random=lambda: 0.0), 0

    async def reconcile(_key: Key) -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            raise ClientError("passing")

    queue.add(a_key())
    async with running(queue, reconcile):
        await until(holds=lambda: runs == 2)


async def test_cancelled_awaitable_inside_a_reconcile_loses_no_key() -> None:
    queue, runs = Queue(random=lambda: 0.0), 0

    async def reconcile(_key: Key) -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            raise asyncio.CancelledError

    queue.add(a_key())
    async with running(queue, reconcile):
        await until(holds=lambda: runs == 2)


async def test_cancelling_the_queue_ends_its_workers_before_it_returns() -> None:
    queue, cleaned = Queue(), []

    async def reconcile(key: Key) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            cleaned.append(key)

    queue.add(a_key("a"))
    queue.add(a_key("b"))
    async with running(queue, reconcile):
        await until(holds=lambda: len(queue.running) == 2)
    assert sorted(key.name for key in cleaned) == ["a", "b"]
