"""What the attempts of a build say: Jobs and their pods in, one verdict out.

An Engine (or the look-up of a digest) is tried by one Kubernetes Job after another, each
created once and never changed. The newest Job of the current generation decides.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Sequence
from typing import Any

from engine_builder.codec import from_json
from engine_builder.contract import USER_FAULTS, Reason, Report
from triton_operator.plan import names, pods

Object = dict[str, Any]

KEPT_SECONDS = 3600.0
"""How long an ended Job whose result is safe stays, so that its log can be read. Where the result is a
fault, the Job stays until a newer attempt: it is what remembers the fault."""

FIRST_BACKOFF_SECONDS = 5.0
LONGEST_BACKOFF_SECONDS = 300.0
LONGEST_SOURCE_BACKOFF_SECONDS = 60.0
"""A source that isn't there yet is looked for this often: any order of apply works."""

_MENDED_IN_PLACE = frozenset(
    {
        Reason.SOURCE_NOT_FOUND.value,
        Reason.INVALID_SAMPLES.value,
        Reason.INVALID_CALIBRATION.value,
        Reason.ACCESS_DENIED.value,
        Reason.HOST_NOT_ALLOWED.value,
        Reason.SOURCE_TOO_LARGE.value,
    }
)
"""Faults that a user puts right without touching the spec: so they are tried again all the same."""

RESULT_SECONDS = 60.0
"""A result may be seen so long after its Job has ended: NFS keeps a directory's listing for a minute."""


@dataclasses.dataclass(frozen=True)
class Start:
    """Create the Job of this attempt."""

    attempt: int


@dataclasses.dataclass(frozen=True)
class Running:
    """A Job is under way; reason and message say how far, in the scheduler's or kubelet's words."""

    job: str
    attempt: int
    reason: str
    message: str


@dataclasses.dataclass(frozen=True)
class Succeeded:
    """The newest Job ended well; in `lost_after` seconds a result that isn't found counts as lost."""

    job: str
    attempt: int
    report: Report | None
    seconds: float
    lost_after: float


@dataclasses.dataclass(frozen=True)
class Failed:
    """The newest Job failed; `retry_after` seconds from now the next begins, None means never."""

    job: str
    attempt: int
    reason: str
    message: str
    users_fault: bool
    retry_after: float | None


Verdict = Start | Running | Succeeded | Failed


def judge(
    jobs: Sequence[Object],
    job_pods: Sequence[Object],
    *,
    generation: int,
    now: datetime.datetime,
    first_backoff: float = FIRST_BACKOFF_SECONDS,
    seen: int | None = None,
) -> Verdict:
    """Return what to do about a build, from its Jobs and their pods.

    `seen` is the attempt whose result was found once: what is not found any more was removed,
    and is not waited for.
    """
    current = [job for job in jobs if "deletionTimestamp" not in job["metadata"]]
    newest = max(current, key=attempt_of, default=None)
    if newest is None:
        return Start(attempt=max((attempt_of(j) for j in jobs), default=0) + 1)
    own_pods = [p for p in job_pods if pods.is_owned_by(p, newest["metadata"]["uid"])]
    ended = condition(newest, "Complete")
    # Job and pod come by different watches: a pod that still runs here hasn't told its report yet.
    if ended is not None and all(map(pods.has_ended, own_pods)):
        return _succeeded(newest, own_pods, ended=ended, now=now, seen=attempt_of(newest) == seen)
    if condition(newest, "Failed") is None:
        return _running(newest, own_pods)
    if generation_of(newest) != generation:
        return Start(attempt=attempt_of(newest) + 1)
    return _failed(newest, own_pods, now=now, first_backoff=first_backoff)


def attempt_of(job: Object) -> int:
    """Return the number of the attempt that a Job is."""
    return int(job["metadata"].get("labels", {}).get(names.ATTEMPT, 0))


def generation_of(job: Object) -> int:
    """Return the generation of the owner that a Job was made for."""
    return int(job["metadata"].get("labels", {}).get(names.GENERATION, 0))


def condition(job: Object, kind: str) -> Object | None:
    """Return a Job's condition of this type when it is true."""
    for item in job.get("status", {}).get("conditions") or []:
        if item["type"] == kind and item["status"] == "True":
            return dict(item)
    return None


def end_of(job: Object) -> Object | None:
    """Return the condition that says how a Job has ended, or None while it hasn't."""
    return condition(job, "Complete") or condition(job, "Failed")


def has_had_its_time(job: Object, *, now: datetime.datetime) -> bool:
    """Tell whether a Job ended long enough ago for nobody to read its log any more."""
    ended = end_of(job)
    if ended is None:
        return False
    since = parse_time(ended.get("lastTransitionTime") or job["metadata"]["creationTimestamp"])
    return (now - since).total_seconds() > KEPT_SECONDS


def outdated(jobs: Sequence[Object]) -> list[Object]:
    """Return the Jobs that newer attempts have replaced."""
    newest = max(map(attempt_of, jobs), default=0)
    return [job for job in jobs if attempt_of(job) < newest]


def backoff(attempt: int, *, longest: float, first: float = FIRST_BACKOFF_SECONDS) -> float:
    """Return the seconds between the end of an attempt and the next: 5, 10, 20, … `longest`."""
    return float(min(first * 2 ** min(attempt - 1, 16), longest))


def _succeeded(
    job: Object, own_pods: Sequence[Object], *, ended: Object, now: datetime.datetime, seen: bool
) -> Succeeded:
    status = job["status"]
    seconds = 0.0
    if status.get("startTime") and status.get("completionTime"):
        seconds = (parse_time(status["completionTime"]) - parse_time(status["startTime"])).total_seconds()
    since = parse_time(ended.get("lastTransitionTime") or job["metadata"]["creationTimestamp"])
    pause = backoff(attempt_of(job), longest=LONGEST_BACKOFF_SECONDS)
    patience = pause if seen else max(RESULT_SECONDS, pause)
    return Succeeded(
        job=job["metadata"]["name"],
        attempt=attempt_of(job),
        report=report_of(own_pods),
        seconds=seconds,
        lost_after=max(0.0, patience - (now - since).total_seconds()),
    )


def _running(job: Object, own_pods: Sequence[Object]) -> Running:
    reason, message = "Building", f"Job {job['metadata']['name']} runs"
    for pod in own_pods:
        trouble = pods.waiting_trouble(pod)
        if trouble is not None:
            reason, message = trouble
    return Running(job=job["metadata"]["name"], attempt=attempt_of(job), reason=reason, message=message)


def _failed(
    job: Object, own_pods: Sequence[Object], *, now: datetime.datetime, first_backoff: float
) -> Failed:
    report = report_of(own_pods)
    failure = condition(job, "Failed") or {}
    reason, message = why(failure, report, own_pods)
    users_fault = report is not None and report.reason in USER_FAULTS
    attempt = attempt_of(job)
    retry = None
    if not users_fault or reason in _MENDED_IN_PLACE:
        missing = reason == Reason.SOURCE_NOT_FOUND.value
        longest = LONGEST_SOURCE_BACKOFF_SECONDS if missing else LONGEST_BACKOFF_SECONDS
        ended = parse_time(failure.get("lastTransitionTime") or job["metadata"]["creationTimestamp"])
        pause = backoff(attempt, longest=longest, first=first_backoff)
        retry = max(0.0, pause - (now - ended).total_seconds())
    return Failed(
        job=job["metadata"]["name"],
        attempt=attempt,
        reason=reason,
        message=message,
        users_fault=users_fault,
        retry_after=retry,
    )


def why(failure: Object, report: Report | None, own_pods: Sequence[Object]) -> tuple[str, str]:
    """Return why a Job failed, as (reason, message)."""
    if report is not None and report.reason is not Reason.SUCCEEDED:
        return report.reason.value, report.message
    if failure.get("reason") == "DeadlineExceeded":
        return "DeadlineExceeded", "the Job did not end within its deadline"
    for pod in own_pods:
        trouble = pods.failure(pod)
        if trouble is not None:
            return trouble
    return "PodLost", "the Job's pod is gone without a report (deleted, or its node went away)"


def report_of(own_pods: Sequence[Object]) -> Report | None:
    """Return what a Job's pod has reported, or None."""
    for pod in own_pods:
        text = pods.termination_message(pod)
        try:
            return from_json(Report, text)
        except ValueError:
            continue  # killed before it could write, or written by something else
    return None


def parse_time(text: str) -> datetime.datetime:
    """Read an RFC 3339 time of the API server."""
    return datetime.datetime.fromisoformat(text)
