from __future__ import annotations

from typing import Any

import pytest

from corpus import verdict, wheel
from corpus.case import Outcome


def an_outcome(reason: str = "Succeeded", message: str = "", **fields: Any) -> Outcome:
    return Outcome(
        **{"model": "m", "precision": "FP16", "reason": reason, "message": message, "seconds": 1.0} | fields
    )


@pytest.mark.parametrize(
    "outcome",
    [
        an_outcome(cosine=0.9999),
        an_outcome(cosine=None),
        an_outcome("AccuracyLost", "FP16: output 'y' has lowest cosine 0.9"),
        an_outcome("UnsupportedPrecision", "build.precision INT8: the model has no Conv"),
    ],
)
def test_what_is_built_right_or_refused_for_what_it_is_needs_no_look(outcome: Outcome) -> None:
    assert verdict.problem(outcome) == ""


@pytest.mark.parametrize(
    "outcome",
    [
        an_outcome(cosine=0.99),
        an_outcome(cosine=0.9999, precision="FP32"),
        an_outcome("InternalError", "KeyError: 'x'"),
        an_outcome("InvalidModel", "onnxruntime crashed on the model (SIGSEGV)"),
        an_outcome("WrongAnswers", "against the wheel: output 'y' is missing in the answer"),
        an_outcome("UnsupportedPrecision", "build.precision FP16: the converted model is refused: …"),
        an_outcome("UnsupportedPrecision", "build.precision INT8: the model cannot be quantised (…)"),
    ],
)
def test_crashes_wrong_answers_and_refusals_by_a_library_are_problems(outcome: Outcome) -> None:
    assert verdict.problem(outcome)


def test_the_table_counts_reasons_by_precision_with_successes_first() -> None:
    outcomes = [an_outcome(), an_outcome("AccuracyLost"), an_outcome(precision="FP32"), an_outcome()]
    assert [line.split() for line in verdict.table(outcomes).splitlines()] == [
        ["reason", "FP32", "FP16"],
        ["Succeeded", "1", "2"],
        ["AccuracyLost", "0", "1"],
    ]


def test_the_wheel_has_models_with_inputs_and_answers() -> None:
    models = {model.name: model for model in wheel.models()}
    assert {name.split("/")[0] for name in models} == set(wheel.FOLDERS)
    conv = models["pytorch-converted/Conv2d"]
    inputs, answers = conv.inputs(), conv.answers()
    assert inputs is not None
    assert answers is not None
    assert [array.ndim for array in (*inputs.values(), *answers.values())] == [4, 4]
