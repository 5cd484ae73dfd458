"""A server's replica lent to a build that finds no free GPU: when it steps back, when it returns.

The loan stands in an annotation of the server's Deployment, so that it outlives the operator, and ends
with the Job that borrows.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterable, Sequence
from typing import Any

from engine_builder.codec import from_json, to_json
from triton_operator.plan import attempts, compile_jobs, names, pods
from triton_operator.plan.outcome import Outcome, Ready, Stalled, Waiting
from triton_operator.resources.gpu import WhenNoFreeGpu
from triton_operator.resources.triton_server import TritonServer

Object = dict[str, Any]

BORROW_AFTER_SECONDS = 10.0
"""So long a compile pod waits for a GPU before a replica steps back: another build may be about to end."""

IN_VAIN_SECONDS = 300.0
"""A pod that is still not scheduled so long after the replica has ended waits for something else."""


@dataclasses.dataclass(frozen=True)
class Loan:
    """What is lent to the Job of this UID since (RFC 3339).

    `away` replicas of the spec don't run meanwhile: one, and those that had no GPU anyway. 0 says that the
    loan was in vain and is over: the server lends nothing until this Job has ended.
    """

    job: str
    uid: str
    engine: str
    since: str
    away: int

    @property
    def stands(self) -> bool:
        """Tell whether a replica is away."""
        return self.away > 0

    def to_text(self) -> str:
        """Return what the annotation holds."""
        return to_json(self)


@dataclasses.dataclass(frozen=True)
class Decision:
    """The loan that must stand now, and in how many seconds time alone may change that."""

    loan: Loan | None = None
    after: float | None = None


def loan_of(deployment: Object | None) -> Loan | None:
    """Return the loan that a server's Deployment carries, or None."""
    metadata = deployment["metadata"] if deployment is not None else {}
    try:
        found = from_json(Loan, (metadata.get("annotations") or {})[names.LENT])
        attempts.parse_time(found.since)
    except (KeyError, ValueError):  # none, or something that another hand wrote
        return None
    return found


def left_to(server: TritonServer, loan: Loan | None) -> int:
    """Return how many pods a server has besides what it has lent."""
    return max(0, server.spec.replicas - (loan.away if loan is not None else 0))


def needed(server: TritonServer, loan: Loan | None) -> int:
    """Return how many pods must serve for all to be well: without its last one a server serves nobody."""
    return max(left_to(server, loan), min(1, server.spec.replicas))


def decide(
    server: TritonServer,
    loan: Loan | None,
    *,
    jobs: Iterable[Object],
    job_pods: Sequence[Object],
    own_pods: Sequence[Object],
    now: datetime.datetime,
) -> Decision:
    """Return the loan that must stand, from a server's compile Jobs, their pods and its own pods."""
    if compile_jobs.settings_of(server).when_no_free_gpu is not WhenNoFreeGpu.BORROW_REPLICA:
        return Decision()
    under_way = [job for job in jobs if _is_under_way(job)]
    borrower = next((job for job in under_way if loan is not None and _uid(job) == loan.uid), None)
    if loan is not None and borrower is not None:
        return _standing(server, loan, _pod_of(borrower, job_pods), now=now)
    return _new(server, under_way, job_pods, own_pods, now=now)


def _standing(server: TritonServer, loan: Loan, pod: Object | None, *, now: datetime.datetime) -> Decision:
    """Keep a loan while its Job goes on, unless the GPU is no help."""
    if not loan.stands or pod is None or pods.scheduling(pod).get("status") != "False":
        return Decision(loan)
    shutdown = server.spec.shutdown
    patience = shutdown.leave_seconds + shutdown.exit_timeout_seconds + IN_VAIN_SECONDS
    left = patience - (now - attempts.parse_time(loan.since)).total_seconds()
    return Decision(loan, after=left) if left > 0 else Decision(dataclasses.replace(loan, away=0))


def _new(
    server: TritonServer,
    under_way: Sequence[Object],
    job_pods: Sequence[Object],
    own_pods: Sequence[Object],
    *,
    now: datetime.datetime,
) -> Decision:
    """Lend to the oldest Job whose pod has waited long enough for a GPU, if a pod of the server has one."""
    holding = sum(pods.stands(pod) and bool(pod["spec"].get("nodeName")) for pod in own_pods)
    found = [(job, _waiting_since(server, _pod_of(job, job_pods))) for job in under_way]
    waiting = [(since, job) for job, since in found if since is not None]
    if not waiting or not holding or not server.spec.replicas:
        return Decision()
    since, job = min(waiting, key=lambda each: (each[0], each[1]["metadata"]["name"]))
    left = BORROW_AFTER_SECONDS - (now - since).total_seconds()
    if left > 0:
        return Decision(after=left)
    loan = Loan(
        job=job["metadata"]["name"],
        uid=_uid(job),
        engine=job["metadata"]["labels"].get(names.ENGINE, ""),
        since=now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        away=server.spec.replicas - min(server.spec.replicas, holding) + 1,
    )
    return Decision(loan)


def _waiting_since(server: TritonServer, pod: Object | None) -> datetime.datetime | None:
    """Return since when the scheduler finds no GPU for a pod, or None when that isn't what it waits for."""
    scheduled = pods.scheduling(pod) if pod is not None else {}
    gpu = server.spec.gpu
    if pod is None or gpu is None or scheduled.get("status") != "False" or not pods.stands(pod):
        return None
    if f"Insufficient {gpu.resource}" not in (scheduled.get("message") or ""):
        return None
    return attempts.parse_time(scheduled.get("lastTransitionTime") or pod["metadata"]["creationTimestamp"])


def _is_under_way(job: Object) -> bool:
    return attempts.end_of(job) is None and "deletionTimestamp" not in job["metadata"]


def _pod_of(job: Object, job_pods: Sequence[Object]) -> Object | None:
    return next((pod for pod in job_pods if pods.is_owned_by(pod, _uid(job))), None)


def _uid(job: Object) -> str:
    return str(job["metadata"]["uid"])


# -- what people are told --------------------------------------------------------------------------


def lent(server: TritonServer, loan: Loan | None) -> str:
    """Say what is lent, if anything is."""
    if loan is None or not loan.stands:
        return ""
    alone = "" if left_to(server, loan) else ": requests fail until it has ended"
    return f"{loan.away} of {server.spec.replicas} replicas lent to the build of engine {loan.engine}{alone}"


def returned(before: Loan, after: Loan | None) -> str:
    """Say that a replica is back; `after` is the loan when it was in vain."""
    why = ": the GPU was of no help to its pod" if after is not None else ""
    return f"what was lent to the build of engine {before.engine} is back{why}"


def told_by_server(server: TritonServer, loan: Loan | None, outcome: Outcome) -> Outcome:
    """Return the outcome of a server with what it has lent; its Ready stays what it would be without."""
    said = lent(server, loan)
    if not said:
        return outcome
    message = f"{outcome.message}; {said}"
    if isinstance(outcome, Ready | Waiting):
        return dataclasses.replace(outcome, reason="Lent", message=message)
    return dataclasses.replace(outcome, message=message)


def told_by_engine(loan: Loan | None, server: str, outcome: Outcome) -> Outcome:
    """Return the outcome of an engine whose Job this loan is for."""
    if loan is None or isinstance(outcome, Ready | Stalled):
        return outcome
    if not loan.stands:
        message = f"{outcome.message}; a GPU lent by TritonServer {server} was of no help, and went back"
        return dataclasses.replace(outcome, message=message)
    if outcome.reason == "Unschedulable":
        message = f"borrowing a GPU of TritonServer {server}: {outcome.message}"
        return dataclasses.replace(outcome, reason="BorrowingGPU", message=message)
    message = f"{outcome.message}, on a GPU borrowed from TritonServer {server}"
    return dataclasses.replace(outcome, message=message)
