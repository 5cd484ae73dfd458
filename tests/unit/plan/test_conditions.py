from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from triton_operator.plan.conditions import MESSAGE_LENGTH, Condition, shorten, summarise
from triton_operator.plan.outcome import Outcome, Ready, Stalled, Waiting
from triton_operator.resources.common import Status

EARLIER, LATER = "2026-07-01T12:00:00Z", "2026-07-01T13:00:00Z"

reasons = st.sampled_from(["Served", "Building", "InvalidModel"])
texts = st.text(max_size=20)
outcomes = st.one_of(
    st.builds(Ready, reasons, texts), st.builds(Waiting, reasons, texts), st.builds(Stalled, reasons, texts)
)


def told(
    previous: list[Condition], outcome: Outcome, *, now: str = EARLIER, generation: int = 1
) -> list[Condition]:
    return summarise(previous=previous, outcome=outcome, generation=generation, now=now)


def statuses(conditions: list[Condition]) -> dict[str, str]:
    return {condition["type"]: condition["status"] for condition in conditions}


def test_ready_is_unknown_until_there_is_a_first_verdict() -> None:
    first = told([], Waiting("Building", "…"))
    assert statuses(first) == {"Ready": "Unknown", "Reconciling": "True", "Stalled": "False"}
    ready = told(first, Ready("Served", "…"))
    assert statuses(ready) == {"Ready": "True", "Reconciling": "False", "Stalled": "False"}
    again = told(ready, Waiting("Loading", "…"))
    assert statuses(again) == {"Ready": "False", "Reconciling": "True", "Stalled": "False"}


def test_stalled_is_not_ready_and_not_reconciling() -> None:
    found = told([], Stalled("InvalidModel", "not ONNX"))
    assert statuses(found) == {"Ready": "False", "Reconciling": "False", "Stalled": "True"}
    assert {condition["reason"] for condition in found} == {"InvalidModel"}


@given(st.lists(outcomes, min_size=1, max_size=6))
def test_telling_the_same_again_changes_nothing_not_even_times(told_before: list[Outcome]) -> None:
    conditions: list[Condition] = []
    for outcome in told_before:
        conditions = told(conditions, outcome)
    assert told(conditions, told_before[-1], now=LATER) == conditions


@given(outcomes, outcomes)
def test_a_transition_has_its_time_and_nothing_else_has(before: Outcome, after: Outcome) -> None:
    old = told([], before)
    new = told(old, after, now=LATER)
    for was, found in zip(old, new, strict=True):
        changed = was["status"] != found["status"]
        assert found["lastTransitionTime"] == (LATER if changed else EARLIER)


@given(outcomes)
def test_conditions_fit_the_schema_of_every_kind(outcome: Outcome) -> None:
    status = Status.model_validate({"conditions": told([], outcome, generation=7)})
    assert {c.observed_generation for c in status.conditions} == {7}


@given(st.text(), st.integers(min_value=1, max_value=40))
def test_a_text_that_is_cut_says_so(text: str, length: int) -> None:
    cut = shorten(text, length)
    assert len(cut) <= length
    assert cut == text or cut.endswith("…")


def test_a_long_message_is_cut() -> None:
    found = told([], Stalled("InvalidModel", "x" * 5000))
    assert len(found[0]["message"]) == MESSAGE_LENGTH
