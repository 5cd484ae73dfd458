from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from types import ModuleType


class Doubler:
    """A model with one input `x` and one output `y = 2x`, which refuses rows that hold 13."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, outputs: Any, inputs: Any) -> list[Any]:
        x = inputs["x"]
        self.batches.append(len(x))
        if (x == 13).any():
            raise ValueError("13 is not served")
        return [2 * x for _ in outputs]


def question(batching: ModuleType, index: int, values: list[int], *, width: int = 1) -> Any:
    x = np.repeat(np.array(values, dtype=np.int64)[:, None], width, axis=1)
    return batching.Question(index, ("y",), {"x": x})


def test_requests_of_one_shape_share_a_run(batching: ModuleType) -> None:
    model = Doubler()
    answers = batching.answer(
        [question(batching, 0, [1]), question(batching, 1, [2, 3])], run=model, batched=True
    )
    assert model.batches == [3]
    assert answers[0][0].tolist() == [[2]]
    assert answers[1][0].tolist() == [[4], [6]]


def test_requests_of_other_shapes_run_apart(batching: ModuleType) -> None:
    model = Doubler()
    questions = [question(batching, 0, [1]), question(batching, 1, [1], width=2)]
    answers = batching.answer(questions, run=model, batched=True)
    assert model.batches == [1, 1]
    assert answers[1][0].tolist() == [[2, 2]]


def test_requests_without_a_batch_dimension_run_apart(batching: ModuleType) -> None:
    model = Doubler()
    batching.answer([question(batching, 0, [1]), question(batching, 1, [1])], run=model, batched=False)
    assert model.batches == [1, 1]


def test_a_request_that_fails_takes_no_other_with_it(batching: ModuleType) -> None:
    questions = [question(batching, 0, [1]), question(batching, 1, [13]), question(batching, 2, [3])]
    answers = batching.answer(questions, run=Doubler(), batched=True)
    assert answers[0][0].tolist() == [[2]]
    assert str(answers[1]) == "13 is not served"
    assert answers[2][0].tolist() == [[6]]


def test_an_output_that_is_not_batched_falls_back_to_single_runs(batching: ModuleType) -> None:
    questions = [question(batching, 0, [1]), question(batching, 1, [2])]
    answers = batching.answer(
        questions, run=lambda _outputs, inputs: [inputs["x"].sum(keepdims=True)[0]], batched=True
    )
    assert [answers[0][0].tolist(), answers[1][0].tolist()] == [[1], [2]]


@given(
    batches=st.lists(
        st.tuples(
            st.lists(st.integers(min_value=0, max_value=20), min_size=1, max_size=4), st.integers(1, 2)
        ),
        min_size=1,
        max_size=8,
    )
)
def test_batching_changes_no_answer(batching: ModuleType, batches: list[tuple[list[int], int]]) -> None:
    questions = [question(batching, i, values, width=width) for i, (values, width) in enumerate(batches)]
    together = batching.answer(questions, run=Doubler(), batched=True)
    apart = batching.answer(questions, run=Doubler(), batched=False)
    assert together.keys() == apart.keys()
    for index, expected in apart.items():
        if isinstance(expected, Exception):
            assert str(together[index]) == str(expected)
        else:
            np.testing.assert_array_equal(together[index][0], expected[0])


@pytest.mark.parametrize("rows", [1, 7])
def test_a_single_request_is_passed_on_as_it_came(batching: ModuleType, rows: int) -> None:
    model = Doubler()
    batching.answer([question(batching, 5, list(range(rows)))], run=model, batched=True)
    assert model.batches == [rows]
