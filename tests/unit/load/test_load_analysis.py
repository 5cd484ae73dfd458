from __future__ import annotations

import math
from operator import attrgetter

from load import Outcome, Record, analysis
from load.record import from_line, to_line


def a_record(
    at: float = 0.0,
    *,
    took: float = 0.01,
    version: int | None = 1,
    outcome: Outcome = Outcome.RIGHT,
    asked: int | None = None,
    connection: str = "a",
    stream: str = "http",
) -> Record:
    return Record(
        stream=stream,
        connection=connection,
        asked=asked,
        scheduled=at,
        started=at,
        ended=at + took,
        outcome=outcome,
        answered=version if outcome in (Outcome.RIGHT, Outcome.WRONG) else None,
        error="" if outcome is Outcome.RIGHT else "because",
    )


def test_record_survives_its_journey_between_processes() -> None:
    record = a_record(1.25, outcome=Outcome.CUT, asked=2)
    assert from_line(to_line(record)) == record


def test_requests_without_an_answer_have_failed_and_wrong_answers_have_not() -> None:
    by_outcome = {outcome: a_record(outcome=outcome) for outcome in Outcome}
    failed = analysis.failures(by_outcome.values())
    assert failed == [by_outcome[each] for each in (Outcome.REFUSED, Outcome.CUT, Outcome.LATE)]
    assert analysis.wrong_answers(by_outcome.values()) == [by_outcome[Outcome.WRONG]]


def test_cut_requests_of_a_window_were_under_way_in_it() -> None:
    records = [a_record(at, took=0.5, outcome=Outcome.CUT) for at in (0.0, 0.8, 1.5, 2.2)]
    refused = a_record(1.2, outcome=Outcome.REFUSED)
    assert analysis.cut_between([*records, refused], begin=1.0, end=2.0) == records[1:3]


def test_window_holds_what_was_due_in_it_and_not_at_its_end() -> None:
    records = [a_record(at) for at in (0.0, 1.0, 2.0, 3.0)]
    found = analysis.scheduled_within(records, begin=1.0, end=3.0)
    assert [record.scheduled for record in found] == [1.0, 2.0]


def test_first_and_last_answer_of_a_version_are_times_of_answers() -> None:
    records = [a_record(0.0, version=2), a_record(1.0, version=2, took=3.0), a_record(2.0, version=2)]
    assert analysis.first_answer(records, 2) == 0.01
    assert analysis.last_answer(records, 2) == 4.0
    assert analysis.last_answer(records, 1) is None


def test_percentiles_are_latencies_that_occurred_and_leave_failures_out() -> None:
    records = [a_record(took=milliseconds / 1000) for milliseconds in range(1, 101)]
    records.append(a_record(took=10.0, outcome=Outcome.LATE))
    assert math.isclose(analysis.percentile(records, 0.5), 0.050)
    assert math.isclose(analysis.percentile(records, 0.99), 0.099)
    assert math.isnan(analysis.percentile([], 0.5))


def test_late_start_counts_in_the_latency() -> None:
    record = Record("http", "a", None, 1.0, 1.5, 1.6, Outcome.RIGHT, 1)
    assert math.isclose(record.latency, 0.6)


def test_lower_version_after_a_higher_on_one_connection_is_a_setback() -> None:
    higher, lower = a_record(0.0, version=2), a_record(1.0, version=1)
    assert analysis.setbacks([lower, higher]) == [(higher, lower)]


def test_setback_is_found_behind_many_answers() -> None:
    higher = a_record(0.0, version=2)
    between = [a_record(1.0 + n / 10, version=2) for n in range(5)]
    lower = a_record(9.0, version=1)
    assert [pair[1] for pair in analysis.setbacks([higher, *between, lower])] == [lower]


def test_another_connection_may_lead_to_a_pod_that_is_behind() -> None:
    records = [a_record(0.0, version=2, connection="a"), a_record(1.0, version=1, connection="b")]
    assert analysis.setbacks(records) == []
    assert len(analysis.setbacks(records, by=attrgetter("stream"))) == 1


def test_requests_under_way_at_once_may_be_answered_in_either_order() -> None:
    records = [a_record(0.0, version=1, took=1.0), a_record(0.5, version=2, took=0.1)]
    assert analysis.setbacks(records) == []


def test_requests_that_name_their_version_are_no_setback() -> None:
    records = [a_record(0.0, version=2), a_record(1.0, version=1, asked=1)]
    assert analysis.setbacks(records) == []


def test_summary_counts_what_was_sent_and_who_answered() -> None:
    records = [a_record(), a_record(version=2), a_record(version=2), a_record(outcome=Outcome.CUT)]
    found = analysis.summary(records)
    assert (found.sent, found.failed, found.wrong) == (4, 1, 0)
    assert found.versions == {1: 1, 2: 2}


def test_records_are_told_apart_by_stream() -> None:
    records = [a_record(stream="http"), a_record(stream="grpc"), a_record(stream="http")]
    assert {name: len(found) for name, found in analysis.by_stream(records).items()} == {"http": 2, "grpc": 1}
