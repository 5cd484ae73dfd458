from __future__ import annotations

import datetime
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.observed import NOW, a_job, a_pod, an_ended_pod, at

from engine_builder.contract import USER_FAULTS, Reason, Report
from triton_operator.plan.attempts import (
    LONGEST_BACKOFF_SECONDS,
    RESULT_SECONDS,
    Failed,
    Running,
    Start,
    Succeeded,
    Verdict,
    backoff,
    judge,
    outdated,
)

Object = dict[str, Any]

MENDED_IN_PLACE = {
    Reason.SOURCE_NOT_FOUND,
    Reason.INVALID_SAMPLES,
    Reason.INVALID_CALIBRATION,
    Reason.ACCESS_DENIED,
    Reason.HOST_NOT_ALLOWED,
    Reason.SOURCE_TOO_LARGE,
}


def verdict(*jobs: Object, pods: list[Object] | None = None, now: float = 0, generation: int = 1) -> Verdict:
    return judge(jobs, pods or [], generation=generation, now=NOW + datetime.timedelta(seconds=now))


def failed(reason: Reason, *, now: float = 0, attempt: int = 1, generation: int = 1) -> Verdict:
    pod = an_ended_pod(Report(reason=reason, message="why"), owner=f"job-{attempt}")
    return verdict(a_job(attempt, end="Failed"), pods=[pod], now=now, generation=generation)


def test_the_first_attempt_is_number_one() -> None:
    assert verdict() == Start(1)


def test_a_job_that_is_being_deleted_keeps_its_number_to_itself() -> None:
    assert verdict(a_job(3, deleting=True)) == Start(4)


def test_a_job_under_way_is_left_alone_whatever_the_generation() -> None:
    found = verdict(a_job(2), generation=9)
    assert found == Running("build-2", 2, "Building", "Job build-2 runs")


def test_a_running_job_tells_what_its_pod_waits_for() -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes"}
    found = verdict(a_job(1), pods=[a_pod(conditions=[condition])])
    assert isinstance(found, Running)
    assert (found.reason, found.message) == ("Unschedulable", "0/2 nodes")


def test_a_success_brings_its_report_and_how_long_it_took() -> None:
    report = Report(reason=Reason.SUCCEEDED, sha256="ab")
    found = verdict(a_job(1, end="Complete"), pods=[an_ended_pod(report)])
    assert found == Succeeded("build-1", 1, report, seconds=8.0, lost_after=RESULT_SECONDS)


def test_a_job_is_not_over_before_its_pod_has_told_its_report() -> None:
    running = a_pod(phase="Running", containerStatuses=[{"name": "engine-builder", "state": {"running": {}}}])
    assert isinstance(verdict(a_job(1, end="Complete"), pods=[running]), Running)


def test_a_result_that_is_not_found_is_lost_only_after_a_while() -> None:
    job = a_job(1, end="Complete")
    early, late = verdict(job, now=1), verdict(job, now=RESULT_SECONDS + 1)
    assert isinstance(early, Succeeded)
    assert isinstance(late, Succeeded)
    assert (early.lost_after, late.lost_after) == (RESULT_SECONDS - 1, 0)


@pytest.mark.parametrize(("attempt", "patience"), [(1, 5.0), (3, 20.0), (9, 300.0)])
def test_a_result_that_was_seen_and_is_gone_is_made_anew_with_a_backoff(
    attempt: int, patience: float
) -> None:
    job = a_job(attempt, end="Complete")
    gone = judge([job], [], generation=1, now=NOW, seen=attempt)
    not_seen = judge([job], [], generation=1, now=NOW, seen=attempt - 1)
    assert isinstance(gone, Succeeded)
    assert isinstance(not_seen, Succeeded)
    assert (gone.lost_after, not_seen.lost_after) == (patience, max(patience, RESULT_SECONDS))


@pytest.mark.parametrize("reason", sorted(USER_FAULTS - MENDED_IN_PLACE))
def test_a_users_fault_is_not_tried_again_until_the_spec_changes(reason: Reason) -> None:
    found = failed(reason, now=1e6)
    assert isinstance(found, Failed)
    assert (found.users_fault, found.retry_after, found.reason) == (True, None, reason.value)
    assert failed(reason, generation=2) == Start(2)


def test_a_source_that_is_not_there_yet_is_looked_for_again() -> None:
    found = failed(Reason.SOURCE_NOT_FOUND, now=1)
    assert isinstance(found, Failed)
    assert (found.users_fault, found.retry_after) == (True, 4)


def test_samples_that_somebody_may_correct_are_read_again() -> None:
    found = failed(Reason.INVALID_SAMPLES, now=1)
    assert isinstance(found, Failed)
    assert (found.users_fault, found.retry_after) == (True, 4)


@pytest.mark.parametrize("reason", [Reason.VOLUME_FULL, Reason.CANCELLED, Reason.INTERNAL_ERROR])
def test_a_passing_fault_is_tried_again(reason: Reason) -> None:
    found = failed(reason)
    assert isinstance(found, Failed)
    assert (found.users_fault, found.retry_after) == (False, 5)
    due = failed(reason, now=60)
    assert isinstance(due, Failed)
    assert due.retry_after == 0


@pytest.mark.parametrize(
    ("job", "pods", "reason"),
    [
        (a_job(1, end="Failed", reason="DeadlineExceeded"), [], "DeadlineExceeded"),
        (a_job(1, end="Failed"), [], "PodLost"),
        (a_job(1, end="Failed"), [a_pod(reason="Evicted", message="no memory")], "Evicted"),
        (a_job(1, end="Failed"), [an_ended_pod(code=137)], "Error"),
        (a_job(1, end="Failed"), [an_ended_pod(code=1, message="Traceback")], "Error"),
        (a_job(1, end="Failed"), [a_pod(owner="another", reason="Evicted")], "PodLost"),
    ],
)
def test_a_failure_without_a_report_is_a_passing_one(job: Object, pods: list[Object], reason: str) -> None:
    found = verdict(job, pods=pods)
    assert isinstance(found, Failed)
    assert (found.reason, found.users_fault) == (reason, False)
    assert found.message


@given(st.integers(min_value=1, max_value=10**6), st.sampled_from([60.0, 300.0]))
def test_pauses_double_and_are_bounded(attempt: int, longest: float) -> None:
    assert 5 <= backoff(attempt, longest=longest) <= backoff(attempt + 1, longest=longest) <= longest


def test_only_jobs_that_a_newer_attempt_has_replaced_are_cleared_away() -> None:
    jobs = [a_job(1, end="Failed"), a_job(3), a_job(2, end="Failed")]
    assert outdated(jobs) == [jobs[0], jobs[2]]
    assert outdated([]) == []


class Builds(RuleBasedStateMachine):
    """Acts on every verdict as the controllers do, while Jobs end, vanish and specs change."""

    def __init__(self) -> None:
        super().__init__()
        self.jobs: dict[int, Object] = {}
        self.pods: dict[int, Object] = {}
        self.now = 0.0
        self.generation = 1
        self.faults: dict[int, Reason] = {}

    def judge(self) -> Verdict:
        return verdict(
            *self.jobs.values(), pods=list(self.pods.values()), now=self.now, generation=self.generation
        )

    def running(self) -> list[int]:
        return [
            number
            for number, job in self.jobs.items()
            if not job["status"] and "deletionTimestamp" not in job["metadata"]
        ]

    @rule()
    def act(self) -> None:
        found = self.judge()
        due = isinstance(found, Failed) and found.retry_after == 0
        if isinstance(found, Start) or due:
            number = found.attempt + (1 if due else 0)
            assert number not in self.jobs, "a Job of that name is there"
            assert not self.running(), "two attempts at once"
            newest = max(
                (n for n, j in self.jobs.items() if "deletionTimestamp" not in j["metadata"]), default=0
            )
            fault = self.faults.get(newest)
            same = newest and self.jobs[newest]["metadata"]["labels"]["triton-operator.io/generation"]
            if same == str(self.generation) and fault in USER_FAULTS:
                assert fault in MENDED_IN_PLACE, "a user's fault was tried again"
            self.jobs[number] = a_job(number, generation=self.generation, ended=self.now)
        for job in outdated(list(self.jobs.values())):
            number = int(job["metadata"]["name"].removeprefix("build-"))
            del self.jobs[number]
            self.pods.pop(number, None)

    @precondition(lambda self: self.running())
    @rule(reason=st.sampled_from(Reason))
    def end(self, reason: Reason) -> None:
        number = self.running()[0]
        report = Report(reason=reason, message="…")
        end = "Complete" if reason is Reason.SUCCEEDED else "Failed"
        generation = int(self.jobs[number]["metadata"]["labels"]["triton-operator.io/generation"])
        self.jobs[number] = a_job(number, end=end, ended=self.now, generation=generation)
        self.pods[number] = an_ended_pod(report, owner=f"job-{number}")
        self.faults[number] = reason

    @rule(seconds=st.sampled_from([0.5, 5.0, 60.0, 4000.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def change_the_spec(self) -> None:
        self.generation += 1

    @precondition(lambda self: self.jobs)
    @rule()
    def delete_by_hand(self) -> None:
        self.jobs[max(self.jobs)]["metadata"]["deletionTimestamp"] = at(self.now)

    @invariant()
    def next_look_is_never_far(self) -> None:
        found = self.judge()
        if isinstance(found, Failed) and found.retry_after is not None:
            assert 0 <= found.retry_after <= LONGEST_BACKOFF_SECONDS

    @invariant()
    def judging_twice_says_the_same(self) -> None:
        for first, second in itertools.pairwise([self.judge(), self.judge()]):
            assert first == second


TestBuilds = Builds.TestCase
