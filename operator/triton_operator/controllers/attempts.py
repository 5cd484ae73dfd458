"""Attempts at a build, acted out: Jobs are created, judged, and cleared away when newer ones exist."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable

from engine_builder.contract import Reason
from triton_operator.clients.kube import JOB, POD, Object
from triton_operator.controllers.context import Context
from triton_operator.plan import attempts, names, pods
from triton_operator.plan.attempts import Failed, Running, Start, Succeeded
from triton_operator.plan.outcome import Outcome, Stalled, Waiting
from triton_operator.resources.common import Resource


@dataclasses.dataclass(frozen=True)
class Work:
    """What is attempted: the labels that its Jobs carry, and how the Job of an attempt looks."""

    owner: Resource
    labels: dict[str, str]
    job: Callable[[int], Object]


def verdict(ctx: Context, work: Work, *, seen: int | None = None) -> attempts.Verdict:
    """Return what the Jobs of a work say; `seen` is the attempt whose result was found once."""
    jobs = jobs_of(ctx, work.owner, work.labels)
    found = ctx.cache.labelled(POD.kind, work.owner.namespace, work.labels)
    now = datetime.datetime.now(datetime.UTC)
    generation, first = work.owner.metadata.generation, ctx.settings.retry_seconds
    return attempts.judge(jobs, found, generation=generation, now=now, first_backoff=first, seen=seen)


async def advance(ctx: Context, work: Work, found: attempts.Verdict) -> Outcome:
    """Start the attempt that is due and return how the work stands; a success is the caller's."""
    await _clear(ctx, work)
    if isinstance(found, Start):
        return await _start(ctx, work, found.attempt)
    if isinstance(found, Running):
        return Waiting(found.reason, _numbered(found.message, found.attempt))
    if isinstance(found, Succeeded):
        return Waiting("Built", f"Job {found.job} has ended well")
    return await _retry(ctx, work, found)


async def _retry(ctx: Context, work: Work, found: Failed) -> Outcome:
    if found.retry_after is None:
        return Stalled(found.reason, found.message)
    if found.retry_after <= 0:
        return await _start(ctx, work, found.attempt + 1)
    if found.users_fault:
        missing = found.reason == Reason.SOURCE_NOT_FOUND.value
        again = "looked for again until it appears" if missing else "read again from time to time"
        message = f"{found.message} (it is {again})"
        return Stalled(found.reason, message, after=found.retry_after)
    message = f"{found.message} (attempt {found.attempt} failed, the next follows by itself)"
    return Waiting(found.reason, message, after=found.retry_after)


async def _start(ctx: Context, work: Work, attempt: int) -> Outcome:
    job = await ctx.children.create_once(JOB, work.job(attempt))
    name = job["metadata"]["name"]
    return Waiting("Building", _numbered(f"Job {name} was created", attempt))


async def _clear(ctx: Context, work: Work) -> None:
    for job in attempts.outdated(jobs_of(ctx, work.owner, work.labels)):
        if "deletionTimestamp" not in job["metadata"]:
            await ctx.children.delete(JOB, job)


async def clear_ended(ctx: Context, namespace: str, labels: dict[str, str]) -> None:
    """Delete Jobs whose result is safe and whose log had its time; looked at with every resync."""
    now = datetime.datetime.now(datetime.UTC)
    for job in ctx.cache.labelled(JOB.kind, namespace, labels):
        if "deletionTimestamp" not in job["metadata"] and attempts.has_had_its_time(job, now=now):
            await ctx.children.delete(JOB, job)


def jobs_of(ctx: Context, owner: Resource, labels: dict[str, str]) -> list[Object]:
    """Return the Jobs of a work's attempts."""
    found = ctx.cache.labelled(JOB.kind, owner.namespace, {**labels, names.MANAGED_BY: names.MANAGER})
    return [job for job in found if pods.is_owned_by(job, owner.metadata.uid)]


def _numbered(message: str, attempt: int) -> str:
    return message if attempt == 1 else f"{message} (attempt {attempt})"


@dataclasses.dataclass(frozen=True)
class Newest:
    """The Job of the latest attempt."""

    name: str
    attempt: int
    has_ended: bool


def newest(ctx: Context, namespace: str, labels: dict[str, str]) -> Newest | None:
    """Return the Job of the latest attempt, or None when none is left."""
    found = ctx.cache.labelled(JOB.kind, namespace, labels)
    job = max(found, key=attempts.attempt_of, default=None)
    if job is None:
        return None
    return Newest(job["metadata"]["name"], attempts.attempt_of(job), attempts.end_of(job) is not None)
