from __future__ import annotations

import asyncio
import time
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from tests.unit.load.answering import Answering, answering

from load import LoadError, Outcome, Plan, Protocol, Record, Stream, analysis, mixed, multiply, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

QUESTION = multiply("text", {1: 2.0})
PROTOCOLS = list(Protocol)


@pytest.fixture
async def server() -> AsyncIterator[Answering]:
    async with answering() as found:
        yield found


def a_stream(server: Answering, protocol: Protocol, *, max_age: float = 5.0) -> Stream:
    address = server.grpc if protocol is Protocol.GRPC else server.http
    return Stream("only", protocol, address, max_age=max_age)


async def load(
    streams: Sequence[Stream],
    *,
    until: Callable[[Sequence[Record]], bool],
    rate: float = 100,
    patience: float = 5.0,
) -> list[Record]:
    """Load until the records so far satisfy; in a thread, as the server answers in this one's loop."""

    def run() -> list[Record]:
        with running(Plan(QUESTION, streams, rate=rate, timeout=patience)) as found:
            deadline = time.monotonic() + 20
            while not until(found.records()):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            return found.stop()

    return await asyncio.to_thread(run)


def at_least(count: int) -> Callable[[Sequence[Record]], bool]:
    return lambda records: len(records) >= count


async def test_every_kind_of_client_brings_right_answers(server: Answering) -> None:
    streams = mixed(http=server.http, grpc=server.grpc)
    records = await load(streams, until=at_least(60))
    assert {record.outcome for record in records} == {Outcome.RIGHT}
    assert {record.stream for record in records} == {stream.name for stream in streams}
    assert {record.asked for record in records} == {None, 1}
    assert {record.answered for record in records} == {1}
    assert len(server.asked) == len(records)


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_refused_requests_are_recorded_and_not_repeated(server: Answering, protocol: Protocol) -> None:
    server.refuses = True
    records = await load([a_stream(server, protocol)], until=at_least(30))
    assert {record.outcome for record in records} == {Outcome.REFUSED}
    assert all("no" in record.error for record in records)
    assert len(server.asked) == len(records)


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_cut_requests_are_recorded_and_not_repeated(server: Answering, protocol: Protocol) -> None:
    server.cuts = True
    records = await load([a_stream(server, protocol)], until=at_least(30))
    assert {record.outcome for record in records} == {Outcome.CUT}
    assert len(server.asked) == len(records)


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_connections_that_are_refused_are_recorded(server: Answering, protocol: Protocol) -> None:
    stream = Stream("nobody", protocol, "127.0.0.1:1")
    records = await load([stream], until=at_least(10))
    assert {record.outcome for record in records} == {Outcome.CUT}
    assert server.asked == []


async def open_when_asked(server: Answering, times: int) -> None:
    """Let a server that hangs answer a moment after so many requests have reached it."""
    while len(server.asked) < times:  # noqa: ASYNC110 - the server has nothing to wait for
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.6)
    server.gate.set()


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_server_that_hangs_does_not_hold_up_the_schedule(server: Answering, protocol: Protocol) -> None:
    server.gate.clear()
    opening = asyncio.create_task(open_when_asked(server, 50))
    records = await load([a_stream(server, protocol)], until=at_least(100), rate=50, patience=20)
    await opening
    assert not analysis.failures(records)
    ordered = sorted(records, key=lambda record: record.scheduled)
    gaps = [after.scheduled - before.scheduled for before, after in pairwise(ordered)]
    assert max(gaps) == pytest.approx(1 / 50)
    before_the_gate = [record for record in ordered if record.latency > 0.5]
    assert len(before_the_gate) > 25, "they began though none before was answered"
    assert before_the_gate[0].latency > before_the_gate[-1].latency


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_answer_that_does_not_come_in_time_is_late(server: Answering, protocol: Protocol) -> None:
    server.gate.clear()
    records = await load([a_stream(server, protocol)], until=at_least(5), patience=0.3)
    assert {record.outcome for record in records} == {Outcome.LATE}
    server.gate.set()


async def test_kept_connections_are_used_again_until_they_are_too_old(server: Answering) -> None:
    stream = a_stream(server, Protocol.HTTP_KEPT, max_age=0.5)
    records = await load([stream], until=at_least(200))
    names = {record.connection for record in records}
    assert len(names) == len(set(server.connections))
    assert stream.connections < len(names) < len(records) / 4
    for name in names:
        own = [record for record in records if record.connection == name]
        assert max(r.started for r in own) - min(r.started for r in own) <= 0.6


async def test_new_connections_serve_one_request_each(server: Answering) -> None:
    records = await load([a_stream(server, Protocol.HTTP_NEW)], until=at_least(30))
    assert len({record.connection for record in records}) == len(set(server.connections)) == len(records)


async def test_answer_that_nobody_can_read_ends_the_load_with_its_reason(server: Answering) -> None:
    server.garbles = True

    def run() -> None:
        plan = Plan(QUESTION, [a_stream(server, Protocol.HTTP_KEPT)])
        with running(plan) as found:
            time.sleep(1)
            found.stop()

    with pytest.raises(LoadError, match="JSONDecodeError"):
        await asyncio.to_thread(run)
