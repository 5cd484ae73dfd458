from __future__ import annotations

from typing import TYPE_CHECKING

from tests.bench.finding import Change, Finding, judged

from load import Outcome, Record

if TYPE_CHECKING:
    from collections.abc import Sequence

BEGAN, RATE = 5.0, 200.0
GOOD = tuple(
    Record("http", "http#1", None, n / RATE, n / RATE, n / RATE + 0.01, Outcome.RIGHT, 1) for n in range(2400)
)


def found(records: Sequence[Record], *, excused: Sequence[Record] = ()) -> Finding:
    change = Change(records, began=BEGAN, ended=BEGAN + 1, rate=RATE)
    return judged("something changed", "0 failed", change, excused=excused)


def ended(outcome: Outcome, *, answered: int | None = None) -> Record:
    return Record("gRPC", "gRPC#1.1", None, 6.0, 6.0, 6.1, outcome, answered, "because")


def test_right_answers_alone_are_fine() -> None:
    finding = found(GOOD)
    assert finding.ok
    assert "2,400 requests, 1,400 since the change: 0 failed, 0 wrong" in finding.measured


def test_failed_request_misses_the_mark_and_is_told() -> None:
    for outcome in (Outcome.REFUSED, Outcome.CUT, Outcome.LATE):
        finding = found([*GOOD, ended(outcome)])
        assert not finding.ok
        assert "1 failed" in finding.measured
        assert finding.problems == (
            f"failed: 1 on gRPC: {outcome.value}, version None, because; due +1.00 s",
        )


def test_failure_before_the_change_counts_as_well() -> None:
    early = Record("gRPC", "gRPC#1.1", None, 1.0, 1.0, 1.1, Outcome.CUT, None, "because")
    assert not found([*GOOD, early]).ok


def test_wrong_answer_misses_the_mark() -> None:
    finding = found([*GOOD, ended(Outcome.WRONG, answered=2)])
    assert not finding.ok
    assert "1 wrong" in finding.measured


def test_excused_failure_does_not_count_and_others_do() -> None:
    own, other = ended(Outcome.CUT), ended(Outcome.REFUSED)
    assert found([*GOOD, own], excused=[own]).ok
    assert not found([*GOOD, own, other], excused=[own]).ok


def test_window_with_too_few_requests_proves_nothing() -> None:
    finding = found([record for record in GOOD if record.scheduled < BEGAN + 2])
    assert finding.problems == ("only 400 requests since the change",)
