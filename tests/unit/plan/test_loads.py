from __future__ import annotations

import dataclasses

import pytest
from tests.triton_machine import desired

from triton_operator.plan.converge import Load, Unload
from triton_operator.plan.loads import MOST_PASSING, MOST_REFUSED, Failure, Fault

PROMOTED = Load("text", desired("f", 1, 2))
CANDIDATE = Load("text.candidate", dataclasses.replace(desired("f", 2), trial=True))


def after(step: Load | Unload, times: int, *, fault: Fault = Fault.FAILED, passing: bool = False) -> Failure:
    failure = Failure(step, fault, "no memory", passing=passing)
    for _ in range(times - 1):
        failure = failure.again(fault, "no memory", passing=passing)
    return failure


@pytest.mark.parametrize("step", [PROMOTED, CANDIDATE])
def test_a_version_that_is_refused_again_and_again_is_given_up(step: Load) -> None:
    assert not after(step, MOST_REFUSED - 1).given_up
    assert after(step, MOST_REFUSED).given_up


def test_what_may_pass_is_tried_more_often_and_not_for_ever() -> None:
    assert not after(PROMOTED, MOST_PASSING - 1, passing=True).given_up
    assert after(PROMOTED, MOST_PASSING, passing=True).given_up


def test_a_load_that_takes_too_long_is_not_asked_for_again() -> None:
    assert after(PROMOTED, 1, fault=Fault.TIMEOUT).given_up


def test_a_candidate_brings_a_container_down_once_and_never_again() -> None:
    assert after(CANDIDATE, 1, fault=Fault.CRASHED).given_up
    assert not after(PROMOTED, 1, fault=Fault.CRASHED).given_up
    assert after(PROMOTED, 2, fault=Fault.CRASHED).given_up


def test_an_unload_is_never_given_up() -> None:
    assert not after(Unload("text"), 100).given_up


def test_a_failure_says_how_often_why_and_what_ends_it() -> None:
    assert str(after(PROMOTED, 1)) == "load failed once: no memory"
    assert str(after(PROMOTED, 3)).startswith("load failed 3 times: no memory; given up until")
