from __future__ import annotations

from collections import Counter
from itertools import islice

import numpy as np
import pytest

from load import Outcome, Plan, Protocol, Stream, mixed, multiply
from load.answer import Answer, Judge
from load.plan import arrivals

QUESTION = multiply("text", {1: 2.0, 2: 3.0})


def answer(version: int, factor: float) -> Answer:
    return Answer(version=version, content=(QUESTION.input * np.float32(factor)).tobytes())


def test_requests_are_due_at_a_constant_rate() -> None:
    streams = mixed(http="host:8000", grpc="host:8001")
    due = [arrival.after for arrival in islice(arrivals(Plan(QUESTION, streams, rate=200)), 401)]
    assert due[0] == 0
    assert due[-1] == 2.0
    assert np.allclose(np.diff(due), 1 / 200)


def test_streams_take_turns_by_their_weight() -> None:
    streams = [
        Stream("often", Protocol.GRPC, "host:8001", weight=3),
        Stream("seldom", Protocol.GRPC, "host:8001"),
    ]
    taken = Counter(arrival.stream.name for arrival in islice(arrivals(Plan(QUESTION, streams)), 400))
    assert taken == {"often": 300, "seldom": 100}


def test_mix_has_every_protocol_with_and_without_a_version() -> None:
    streams = mixed(http="host:8000", grpc="host:8001", prefix="pod ")
    assert {(each.protocol, each.version) for each in streams} == {
        (protocol, version) for protocol in Protocol for version in (None, 1)
    }
    assert len({each.name for each in streams}) == len(streams)
    assert {each.address for each in streams if each.protocol is Protocol.GRPC} == {"host:8001"}


@pytest.mark.parametrize(
    ("given", "asked", "outcome"),
    [
        (answer(1, 2.0), None, Outcome.RIGHT),
        (answer(2, 3.0), None, Outcome.RIGHT),
        (answer(1, 2.0), 1, Outcome.RIGHT),
        (answer(1, 3.0), None, Outcome.WRONG),
        (answer(2, 3.0), 1, Outcome.WRONG),
        (answer(3, 2.0), None, Outcome.WRONG),
        (Answer(version=1, content=b""), None, Outcome.WRONG),
        (Answer(failed=Outcome.CUT, error="reset"), None, Outcome.CUT),
    ],
)
def test_answer_is_right_if_its_version_gives_it_and_was_asked(
    given: Answer, asked: int | None, outcome: Outcome
) -> None:
    judge = Judge(QUESTION)
    assert [judge.outcome(given, asked=asked) for _ in range(2)] == [outcome, outcome]


def test_nan_is_never_right() -> None:
    content = np.full((1, 4), np.nan, np.float32).tobytes()
    assert Judge(QUESTION).outcome(Answer(version=1, content=content), asked=None) is Outcome.WRONG
