from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from triton_operator.plan.outcome import Outcome, OutcomeError, Ready, Stalled, Waiting, earliest, worst

waits = st.none() | st.floats(min_value=0, max_value=100)
outcomes = st.lists(
    st.one_of(
        st.builds(Ready, st.just("Done"), st.text()),
        st.builds(Waiting, st.just("Building"), st.text(), after=waits),
        st.builds(Stalled, st.just("Broken"), st.text(), after=waits),
    )
)


@given(outcomes)
def test_the_worst_is_what_a_user_should_read_first(found: list[Outcome]) -> None:
    order = [Stalled, Waiting, Ready]
    top = worst(found)
    if not found:
        assert top is None
        return
    assert top in found
    best_rank = min(order.index(type(outcome)) for outcome in found)
    assert order.index(type(top)) == best_rank
    assert top == next(outcome for outcome in found if isinstance(outcome, order[best_rank]))


def test_the_next_look_is_the_earliest_that_any_outcome_asks_for() -> None:
    assert (
        earliest([Ready("A", ""), Waiting("B", "", after=5), Stalled("C", "", after=2), Waiting("D", "")])
        == 2
    )
    assert earliest([Ready("A", ""), Waiting("B", "")]) is None


def test_an_outcome_travels_as_an_error_with_reason_and_message() -> None:
    error = OutcomeError(Stalled("NameConflict", "Service x is not ours"))
    assert str(error) == "NameConflict: Service x is not ours"
    assert error.outcome == Stalled("NameConflict", "Service x is not ours")
