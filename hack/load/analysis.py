"""What the records of a load say. Plain functions of records; times are `time.monotonic()`'s."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

from load.record import Outcome, Record


def failures(records: Iterable[Record]) -> list[Record]:
    """Return the requests that got no answer."""
    return [record for record in records if record.failed]


def cut_between(records: Iterable[Record], *, begin: float, end: float) -> list[Record]:
    """Return the requests whose connection was refused or broke, and that were under way in a window."""
    return [
        record
        for record in records
        if record.outcome is Outcome.CUT and record.ended >= begin and record.started <= end
    ]


def wrong_answers(records: Iterable[Record]) -> list[Record]:
    """Return the answers that their version doesn't give, or that come from a version that wasn't asked."""
    return [record for record in records if record.outcome is Outcome.WRONG]


def unversioned(records: Iterable[Record]) -> list[Record]:
    """Return the requests that named no version."""
    return [record for record in records if record.asked is None]


def scheduled_within(records: Iterable[Record], *, begin: float, end: float = math.inf) -> list[Record]:
    """Return the requests that were due in a window of time; its end is not part of it."""
    return [record for record in records if begin <= record.scheduled < end]


def answered_by(records: Iterable[Record], version: int) -> list[Record]:
    """Return the answers that came from a version."""
    return [record for record in records if record.answered == version]


def first_answer(records: Iterable[Record], version: int) -> float | None:
    """Return when the first answer from a version came; None: none did."""
    return min((record.ended for record in answered_by(records, version)), default=None)


def last_answer(records: Iterable[Record], version: int) -> float | None:
    """Return when the last answer from a version came; None: none did."""
    return max((record.ended for record in answered_by(records, version)), default=None)


def percentile(records: Iterable[Record], part: float) -> float:
    """Return a latency in seconds that this part of the answered requests did not exceed; NaN without any."""
    ordered = sorted(record.latency for record in records if not record.failed)
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)] if ordered else math.nan


def setbacks(
    records: Iterable[Record], *, by: Callable[[Record], str] = attrgetter("connection")
) -> list[tuple[Record, Record]]:
    """Return answers from a lower version after one from a higher, for requests that named none.

    Only requests that began when the earlier answer was there count: of two under way at once
    either may be answered first. A connection leads to one pod; for streams that go straight to a
    pod compare `by=attrgetter("stream")`.
    """
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in unversioned(records):
        if record.answered is not None:
            groups[by(record)].append(record)
    return [pair for group in groups.values() for pair in _setbacks_of_one(group)]


def _setbacks_of_one(records: Sequence[Record]) -> list[tuple[Record, Record]]:
    ends = sorted(records, key=attrgetter("ended"))
    found, seen, highest = [], 0, None
    for later in sorted(records, key=attrgetter("started")):
        while seen < len(ends) and ends[seen].ended <= later.started:
            if highest is None or _version(ends[seen]) > _version(highest):
                highest = ends[seen]
            seen += 1
        if highest is not None and _version(later) < _version(highest):
            found.append((highest, later))
    return found


def _version(record: Record) -> int:
    return record.answered if record.answered is not None else -1


@dataclass(frozen=True)
class Summary:
    """What came of a number of requests."""

    sent: int
    failed: int
    wrong: int
    versions: Mapping[int, int]
    """Answers by version."""
    p50: float
    p99: float
    """Latencies in seconds, from when requests were due."""


def summary(records: Sequence[Record]) -> Summary:
    """Count and measure."""
    return Summary(
        sent=len(records),
        failed=len(failures(records)),
        wrong=len(wrong_answers(records)),
        versions=dict(sorted(Counter(r.answered for r in records if r.answered is not None).items())),
        p50=percentile(records, 0.5),
        p99=percentile(records, 0.99),
    )


def by_stream(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Return the records of each stream."""
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[record.stream].append(record)
    return dict(groups)
