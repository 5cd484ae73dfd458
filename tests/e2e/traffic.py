"""Requests that come whatever happens, while a test changes something."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from operator import attrgetter
from typing import TYPE_CHECKING

from tests.e2e.stage import GRPC, HTTP
from tests.integration.eventually import eventually

from load import Plan, Question, Record, Run, Stream, analysis, mixed, running

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.e2e.stage import Stage

SERVICE = "service/triton-default"
RATE = 100.0
SETTLED_SECONDS = 1.0
ROLLBACK_SECONDS = 2.0
"""So long after its removal was taken a version may answer, on a machine that is busy with all else."""


@contextlib.contextmanager
def traffic(
    stage: Stage, question: Question, *, targets: Sequence[str] = (SERVICE,), max_age: float = 5.0
) -> Iterator[Run]:
    """Send requests by all protocols, without a version and with number 1, to Service or pods."""
    with contextlib.ExitStack() as stack:
        streams = [
            dataclasses.replace(stream, max_age=max_age)
            for target in targets
            for stream in _streams(target, stack.enter_context(stage.reached(target, HTTP, GRPC)))
        ]
        yield stack.enter_context(running(Plan(question=question, streams=streams, rate=RATE)))


def enough(run: Run) -> None:
    """Wait until more than a second's requests were answered: what is changed may be done sooner."""
    eventually(lambda: _more_than(run.records(), RATE))


def _more_than(records: Sequence[Record], count: float) -> None:
    assert len(records) > count


def everywhere(stage: Stage) -> tuple[str, ...]:
    """Return the Service and every pod as targets."""
    return (SERVICE, *(f"pod/{name}" for name in stage.pod_names()))


def answered_everywhere(run: Run, version: int) -> None:
    """Fail unless a version has answered requests of every kind that named none."""
    records = analysis.unversioned(run.records())
    silent = {r.stream for r in records} - {r.stream for r in analysis.answered_by(records, version)}
    assert records
    assert not silent


def settled(run: Run) -> float:
    """Fail while requests of the last second failed; else return since when none does."""
    since = time.monotonic() - SETTLED_SECONDS
    records = analysis.scheduled_within(run.records(), begin=since)
    assert records
    assert not analysis.failures(records)
    return since


def assert_unnoticed(records: Sequence[Record]) -> None:
    """Fail when a request failed or an answer was wrong."""
    assert len(records) > RATE
    assert not analysis.failures(records), _told(analysis.failures(records), of=records)
    assert not analysis.wrong_answers(records), _told(analysis.wrong_answers(records), of=records)


def assert_no_way_back(records: Sequence[Record]) -> None:
    """Fail when a pod answered by an older version after a newer one."""
    to_pods = [record for record in records if not record.stream.startswith(SERVICE)]
    setbacks = analysis.setbacks(to_pods, by=attrgetter("stream")) or analysis.setbacks(records)
    assert not setbacks, setbacks[0]


def _told(some: Sequence[Record], *, of: Sequence[Record]) -> str:
    """Return how many there are, and when the first and the last were due."""
    begin = min(record.scheduled for record in of)
    first, last = some[0], some[-1]
    seconds = f"from {first.scheduled - begin:.2f} s to {last.scheduled - begin:.2f} s"
    return f"{len(some)} of {len(of)} requests, {seconds}: {first}"


def _streams(target: str, ports: dict[int, str]) -> Sequence[Stream]:
    return mixed(http=ports[HTTP], grpc=ports[GRPC], prefix=f"{target}: ")
