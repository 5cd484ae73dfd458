from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from triton_operator.plan.size import STEP, human, parse, steady

sizes = st.integers(min_value=0, max_value=2**55)


@given(sizes)
def test_a_size_reads_back_to_within_its_last_digit(size: int) -> None:
    # one digit after the point of at least 1.0
    assert abs(parse(human(size)) - size) <= 0.05 * max(size, 1)


def test_sizes_look_like_quantities() -> None:
    assert [human(n) for n in (0, 1023, 1024, 1536, 10 * 2**30)] == ["0", "1023", "1Ki", "1.5Ki", "10Gi"]


@given(sizes, st.integers(min_value=-1000, max_value=1000))
def test_small_changes_of_free_space_are_not_shown(free: int, permille: int) -> None:
    total = 2**55
    shown = human(free)
    after = max(0, free + total * permille // 100_000)
    again = steady(after, of=total, shown=shown)
    if again != shown:
        assert abs(parse(shown) - after) >= STEP * total
    assert steady(after, of=total, shown=again) == again


def test_the_first_look_is_shown_as_it_is() -> None:
    assert steady(3 * 2**30, of=2**34, shown=None) == "3Gi"
