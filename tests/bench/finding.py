"""What a row of the table says."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING

from rich.table import Table

from load import Record, analysis

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH = 160
"""Of the table where there is no terminal, as in a log."""
ENOUGH_SECONDS = 5.0
"""So long the window of a change lasts at least: 1,000 requests at the usual rate."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One row."""

    what: str
    must: str
    measured: str
    problems: tuple[str, ...] = ()
    """What misses the mark."""

    @property
    def ok(self) -> bool:
        """Whether it reaches what it must."""
        return not self.problems


@dataclasses.dataclass(frozen=True)
class Change:
    """What was recorded around a change."""

    records: Sequence[Record]
    began: float
    ended: float
    """When it was done; the load went on for a while."""
    rate: float

    @property
    def window(self) -> list[Record]:
        """Return the requests that were due since the change began."""
        return analysis.scheduled_within(self.records, begin=self.began)


def judged(
    what: str,
    must: str,
    change: Change,
    *,
    excused: Sequence[Record] = (),
    more: Sequence[str] = (),
    problems: Sequence[str] = (),
) -> Finding:
    """Return the finding about a change: no request failed but the excused, and all answers were right."""
    forgiven = set(excused)
    failed = [record for record in analysis.failures(change.records) if record not in forgiven]
    wrong = analysis.wrong_answers(change.records)
    sent, within = len(change.records), len(change.window)
    measured = [
        f"{sent:,} requests, {within:,} since the change: {len(failed)} failed, {len(wrong)} wrong",
        *more,
        f"done after {change.ended - change.began:.1f} s",
    ]
    found = [*_kinds("failed", failed, change), *_kinds("wrong", wrong, change), *problems]
    if within < change.rate * ENOUGH_SECONDS:
        found.append(f"only {within} requests since the change")
    return Finding(what, must, "; ".join(measured), tuple(found))


def _kinds(word: str, records: Sequence[Record], change: Change) -> list[str]:
    """Tell equal ones together, each with the seconds since the change."""
    counted = Counter((r.stream, r.outcome.value, r.error, r.answered) for r in records)
    return [
        f"{word}: {count} on {stream}: {outcome}, version {answered}, {error or 'no error'}; due "
        + ", ".join(
            f"{r.scheduled - change.began:+.2f} s"
            for r in records
            if (r.stream, r.outcome.value, r.error, r.answered) == (stream, outcome, error, answered)
        )[:120]
        for (stream, outcome, error, answered), count in counted.most_common(10)
    ]


def table(findings: Sequence[Finding], *, title: str = "make bench-switch") -> Table:
    """Return all rows."""
    made = Table(title=title, title_justify="left", show_lines=True)
    for heading in ("what", "must reach", "measured", "ok"):
        made.add_column(heading, overflow="fold")
    for found in findings:
        mark = "[green]yes[/green]" if found.ok else "[red]NO[/red]"
        made.add_row(found.what, found.must, "\n".join([found.measured, *found.problems]), mark)
    return made
