from __future__ import annotations

from typing import Any

import pytest

from corpus import verdict, wheel
from corpus.case import Outcome
from corpus.compiling import COLUMNS, TARGETS, Compiled
from corpus.parser import Said


def an_outcome(reason: str = "Succeeded", message: str = "", **fields: Any) -> Outcome:
    return Outcome(
        **{"model": "m", "precision": "FP16", "reason": reason, "message": message, "seconds": 1.0} | fields
    )


def a_plan(reason: str = "Succeeded", message: str = "", *, said: Said | None = None) -> Compiled:
    told = said or Said(supported=True)
    return Compiled("m", "FP16", "8.6", reason, message, seconds=1.0, said=told)


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


LACKS_DET = Said(supported=False, lacking=frozenset({"Det"}))


@pytest.mark.parametrize(
    "plan",
    [
        a_plan(),
        a_plan("UnsupportedOperator", "does not support Det as node 0 has it", said=LACKS_DET),
        a_plan("UnsupportedOperator", "does not support MaxPool (dilations)", said=Said(supported=False)),
    ],
)
def test_what_is_compiled_or_refused_as_the_parser_refuses_it_needs_no_look(plan: Compiled) -> None:
    assert verdict.problem(plan) == ""


@pytest.mark.parametrize(
    "plan",
    [
        a_plan("UnsupportedOperator", "does not support Det as node 0 has it"),
        a_plan("UnsupportedOperator", "does not support it", said=LACKS_DET),
        a_plan("CompilerCrashed", "TensorRT crashed", said=LACKS_DET),
        a_plan("BuildFailed", "odd"),
        a_plan("ProfileMissing", "input 'x' is free"),
    ],
)
def test_a_plan_that_is_refused_for_anything_else_is_a_problem(plan: Compiled) -> None:
    assert verdict.problem(plan)


def test_the_table_counts_reasons_by_column_with_successes_first() -> None:
    found = [("FP16", "Succeeded"), ("FP16", "AccuracyLost"), ("FP32", "Succeeded"), ("FP16", "Succeeded")]
    assert [line.split() for line in verdict.table(list(TARGETS), found).splitlines()] == [
        ["reason", "FP32", "FP16"],
        ["Succeeded", "1", "2"],
        ["AccuracyLost", "0", "1"],
    ]


def test_a_plan_is_counted_by_precision_and_compute_capability() -> None:
    assert a_plan().column in COLUMNS


def test_the_wheel_has_models_with_inputs_and_answers() -> None:
    models = {model.name: model for model in wheel.models()}
    assert {name.split("/")[0] for name in models} == set(wheel.FOLDERS)
    conv = models["pytorch-converted/Conv2d"]
    inputs, answers = conv.inputs(), conv.answers()
    assert inputs is not None
    assert answers is not None
    assert [array.ndim for array in (*inputs.values(), *answers.values())] == [4, 4]
