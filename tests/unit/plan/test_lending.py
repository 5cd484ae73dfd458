from __future__ import annotations

import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import a_server
from tests.observed import NOW, a_job, a_pod, at, server

from triton_operator.plan import names
from triton_operator.plan.lending import (
    BORROW_AFTER_SECONDS,
    IN_VAIN_SECONDS,
    Decision,
    Loan,
    decide,
    left_to,
    lent,
    loan_of,
    needed,
    returned,
    told_by_engine,
    told_by_server,
)
from triton_operator.plan.outcome import Ready, Stalled, Waiting
from triton_operator.resources.triton_server import TritonServer

Object = dict[str, Any]

ENGINE = "tensorrt-5f1c0a9e2b7d4c11"
NO_GPU = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu. preemption: 0/2 nodes are available."
LOAN = Loan(job="build-1", uid="job-1", engine=ENGINE, since=at(0), away=1)


def the_server(replicas: int = 2, *, borrows: bool = True, resource: str = "nvidia.com/gpu") -> TritonServer:
    builds = {"whenNoFreeGPU": "BorrowReplica" if borrows else "Wait"}
    gpu = {"resource": resource}
    return server(a_server("a10").with_replicas(replicas).with_spec(gpu=gpu, builds=builds))


def a_compile_job(attempt: int = 1, **more: Any) -> Object:
    job = a_job(attempt, **more)
    job["metadata"]["labels"][names.ENGINE] = ENGINE
    return job


def a_waiting_pod(attempt: int = 1, *, since: float = 0, message: str = NO_GPU) -> Object:
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": message,
        "lastTransitionTime": at(since),
    }
    return a_pod(f"build-{attempt}", owner=f"job-{attempt}", phase="Pending", conditions=[condition])


def a_running_pod(attempt: int = 1) -> Object:
    condition = {"type": "PodScheduled", "status": "True", "lastTransitionTime": at(0)}
    return a_pod(f"build-{attempt}", owner=f"job-{attempt}", phase="Running", conditions=[condition])


def own_pods(holding: int, *, pending: int = 0) -> list[Object]:
    pods = [a_pod(f"triton-{number}", owner="replicaset") for number in range(holding + pending)]
    for pod in pods[:holding]:
        pod["spec"]["nodeName"] = "node"
    return pods


def decided(
    found: TritonServer,
    loan: Loan | None = None,
    *,
    jobs: list[Object] | None = None,
    pods: list[Object] | None = None,
    own: list[Object] | None = None,
    now: float = BORROW_AFTER_SECONDS,
) -> Decision:
    return decide(
        found,
        loan,
        jobs=[a_compile_job()] if jobs is None else jobs,
        job_pods=[a_waiting_pod()] if pods is None else pods,
        own_pods=own_pods(2) if own is None else own,
        now=NOW + datetime.timedelta(seconds=now),
    )


def test_a_build_that_has_waited_long_enough_borrows_one_replica() -> None:
    expected = Loan("build-1", "job-1", ENGINE, since=at(BORROW_AFTER_SECONDS), away=1)
    assert decided(the_server()) == Decision(expected)
    assert left_to(the_server(), expected) == 1


def test_it_first_waits_a_moment() -> None:
    assert decided(the_server(), now=4) == Decision(None, after=BORROW_AFTER_SECONDS - 4)


def test_the_last_replica_is_lent_as_well() -> None:
    loan = decided(the_server(1), own=own_pods(1)).loan
    assert loan is not None
    assert left_to(the_server(1), loan) == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"found": the_server(borrows=False)},
        {"found": the_server(resource="nvidia.com/mig-1g.10gb")},
        {"found": the_server(0)},
        {"jobs": []},
        {"jobs": [a_compile_job(end="Failed")]},
        {"jobs": [a_compile_job(deleting=True)]},
        {"pods": []},
        {"pods": [a_running_pod()]},
        {"pods": [a_waiting_pod(2)]},
        {"pods": [a_waiting_pod(message="0/2 nodes are available: 2 Insufficient memory.")]},
        {"own": own_pods(0, pending=2)},
    ],
)
def test_nothing_is_lent_without_a_reason(changes: Object) -> None:
    assert decided(**{"found": the_server(), **changes}) == Decision()


def test_pods_without_a_gpu_step_back_as_well_as_they_would_go_first() -> None:
    loan = decided(the_server(4), own=own_pods(3, pending=1)).loan
    assert loan is not None
    assert left_to(the_server(4), loan) == 2


def test_pods_beyond_the_replicas_lend_nothing_more() -> None:
    loan = decided(the_server(2), own=own_pods(3)).loan
    assert loan is not None
    assert loan.away == 1


def test_one_build_borrows_at_a_time_and_the_oldest_first() -> None:
    jobs = [a_compile_job(1), a_compile_job(2)]
    waiting = [a_waiting_pod(1, since=5), a_waiting_pod(2, since=0)]
    first = decided(the_server(), jobs=jobs, pods=waiting, now=60).loan
    assert first is not None
    assert first.job == "build-2"
    assert decided(the_server(), first, jobs=jobs, pods=waiting, now=90).loan == first


@pytest.mark.parametrize("pods", [[a_running_pod()], [], [a_waiting_pod()]])
def test_a_loan_stands_while_its_job_is_under_way(pods: list[Object]) -> None:
    assert decided(the_server(), LOAN, pods=pods, now=60).loan == LOAN


@pytest.mark.parametrize(
    "jobs", [[], [a_compile_job(end="Complete")], [a_compile_job(end="Failed")], [a_compile_job(2)]]
)
def test_a_loan_ends_with_its_job(jobs: list[Object]) -> None:
    assert decided(the_server(), LOAN, jobs=jobs, pods=[], now=60) == Decision()


def test_a_loan_ends_when_the_spec_lends_no_more() -> None:
    assert decided(the_server(borrows=False), LOAN) == Decision()


def test_a_gpu_that_is_of_no_help_goes_back_and_is_not_lent_again() -> None:
    shutdown = the_server().spec.shutdown
    patience = shutdown.leave_seconds + shutdown.exit_timeout_seconds + IN_VAIN_SECONDS
    waits = decided(the_server(), LOAN, now=patience - 1)
    assert waits == Decision(LOAN, after=1)
    over = decided(the_server(), LOAN, now=patience).loan
    assert over is not None
    assert (over.stands, left_to(the_server(), over)) == (False, 2)
    jobs, pods = [a_compile_job(1), a_compile_job(2)], [a_waiting_pod(1), a_waiting_pod(2)]
    assert decided(the_server(), over, jobs=jobs, pods=pods, now=1e6) == Decision(over)
    assert decided(the_server(), over, jobs=[], pods=[], now=1e6) == Decision()


def test_a_deployment_keeps_the_loan() -> None:
    assert loan_of({"metadata": {"annotations": {names.LENT: LOAN.to_text()}}}) == LOAN
    for text in ("{}", LOAN.to_text().replace(LOAN.since, "yesterday")):
        assert loan_of({"metadata": {"annotations": {names.LENT: text}}}) is None
    for other in (None, {"metadata": {}}):
        assert loan_of(other) is None


def test_people_are_told_what_is_lent_and_ready_stays_what_it_was() -> None:
    found = the_server()
    said = f"1 of 2 replicas lent to the build of engine {ENGINE}"
    assert lent(found, LOAN) == said
    assert lent(the_server(1), LOAN).endswith("requests fail until it has ended")
    serving = told_by_server(found, LOAN, Ready("Serving", "1/1 pods are ready"))
    assert serving == Ready("Lent", f"1/1 pods are ready; {said}")
    starting = told_by_server(found, LOAN, Waiting("PodsStarting", "0/1 pods are ready", after=3))
    assert starting == Waiting("Lent", f"0/1 pods are ready; {said}", after=3)
    stalled = told_by_server(found, LOAN, Stalled("TargetChanged", "other nodes"))
    assert stalled == Stalled("TargetChanged", f"other nodes; {said}")
    for loan in (None, Loan("build-1", "job-1", ENGINE, at(0), away=0)):
        assert told_by_server(found, loan, Ready("Serving", "fine")) == Ready("Serving", "fine")


def test_an_engine_tells_whose_gpu_it_borrows() -> None:
    waits = Waiting("Unschedulable", NO_GPU)
    assert told_by_engine(None, "", waits) == waits
    borrowing = Waiting("BorrowingGPU", f"borrowing a GPU of TritonServer a10: {NO_GPU}")
    assert told_by_engine(LOAN, "a10", waits) == borrowing
    runs = told_by_engine(LOAN, "a10", Waiting("Building", "compiling, 42 %"))
    assert runs == Waiting("Building", "compiling, 42 %, on a GPU borrowed from TritonServer a10")
    over = Loan("build-1", "job-1", ENGINE, at(0), away=0)
    assert "of no help" in told_by_engine(over, "a10", waits).message
    assert "of no help" in returned(LOAN, over)
    assert returned(LOAN, None) == f"what was lent to the build of engine {ENGINE} is back"


jobs_and_pods = st.lists(
    st.tuples(
        st.sampled_from(["waits", "runs", "no pod", "Complete", "Failed", "deleting"]), st.integers(0, 400)
    ),
    max_size=3,
)


@given(
    replicas=st.integers(0, 4),
    holding=st.integers(0, 5),
    borrows=st.booleans(),
    states=jobs_and_pods,
    loan=st.one_of(
        st.none(),
        st.builds(
            lambda number, away: Loan(f"build-{number}", f"job-{number}", ENGINE, at(0), away),
            st.integers(1, 4),
            st.integers(0, 3),
        ),
    ),
    now=st.floats(0, 1000),
)
def test_whatever_is_found_a_loan_has_a_job_and_deciding_again_changes_nothing(
    *,
    replicas: int,
    holding: int,
    borrows: bool,
    states: list[tuple[str, int]],
    loan: Loan | None,
    now: float,
) -> None:
    found, jobs, pods = the_server(replicas, borrows=borrows), [], []
    for number, (state, since) in enumerate(states, start=1):
        end = state if state in ("Complete", "Failed") else None
        jobs.append(a_compile_job(number, end=end, deleting=state == "deleting"))
        pods += [a_waiting_pod(number, since=since)] if state == "waits" else []
        pods += [a_running_pod(number)] if state == "runs" else []
    under_way = {f"job-{n}" for n, (state, _) in enumerate(states, start=1) if state in _UNDER_WAY}
    decision = decided(found, loan, jobs=jobs, pods=pods, own=own_pods(holding), now=now)
    assert decision.after is None or decision.after > 0
    assert 0 <= left_to(found, decision.loan) <= needed(found, decision.loan) <= replicas
    if decision.loan is not None:
        assert borrows
        assert decision.loan.uid in under_way
    again = decided(found, decision.loan, jobs=jobs, pods=pods, own=own_pods(holding), now=now)
    assert again.loan == decision.loan


_UNDER_WAY = ("waits", "runs", "no pod")
