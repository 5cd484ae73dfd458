"""Samples of the user's own: a Job puts them into the store with the source's answers to them."""

from __future__ import annotations

import datetime

from triton_operator.clients.keeper import KeeperCallError
from triton_operator.clients.kube import JOB, MODEL_REPOSITORY
from triton_operator.controllers import attempts
from triton_operator.controllers.attempts import Work
from triton_operator.controllers.context import Context
from triton_operator.plan import jobs, names, samples
from triton_operator.plan.attempts import Start, Succeeded
from triton_operator.plan.outcome import Outcome, OutcomeError, Waiting
from triton_operator.plan.samples import Entry
from triton_operator.resources.inference_model import InferenceModel
from triton_operator.resources.model_repository import ModelRepository


async def find(ctx: Context, model: InferenceModel, *, repository: str, engine: str) -> str | Outcome | None:
    """Return the entry of the store that holds the model's samples for an engine.

    None when the spec names no samples, an outcome while the entry isn't there.
    """
    wanted = samples.entry(model, engine)
    if wanted is None:
        return None
    if _is_there(ctx, model, repository, wanted):
        return wanted.name
    try:
        return await _make(ctx, model, repository=repository, engine=engine, wanted=wanted)
    except OutcomeError as error:
        return error.outcome


async def _make(
    ctx: Context, model: InferenceModel, *, repository: str, engine: str, wanted: Entry
) -> str | Outcome:
    place = (model.namespace, repository)
    found = ctx.cache.read(ModelRepository, *place)
    if found is None or ctx.volumes.snapshot(place) is None:
        message = f"ModelRepository {repository} has no keeper that answers yet"
        return Waiting("RepositoryNotReady", message)
    work = Work(
        owner=model,
        labels=wanted.labels,
        job=lambda attempt: jobs.reference(
            model=model,
            engine=engine,
            entry=wanted,
            attempt=attempt,
            repository=found,
            images=ctx.images(found),
        ),
    )
    verdict = attempts.verdict(ctx, work)
    if isinstance(verdict, Start | Succeeded):
        await _refresh(ctx, place)  # the store may be ahead of the last look at it
        if _is_there(ctx, model, repository, wanted):
            return wanted.name
    if isinstance(verdict, Succeeded):
        if verdict.lost_after > 0:
            message = f"Job {verdict.job} has ended well; its samples are about to appear in the store"
            return Waiting("Building", message, after=min(2.0, verdict.lost_after))
        verdict = Start(attempt=verdict.attempt + 1)  # somebody removed them from the volume
    return await attempts.advance(ctx, work, verdict)


async def _refresh(ctx: Context, place: tuple[str, str]) -> None:
    try:
        await ctx.volumes.refresh(place)
    except KeeperCallError as error:
        raise OutcomeError(Waiting("KeeperUnreachable", str(error), after=2.0)) from error


def _is_there(ctx: Context, model: InferenceModel, repository: str, wanted: Entry) -> bool:
    store = ctx.volumes.snapshot((model.namespace, repository))
    manifest = store.engines.get(wanted.name) if store is not None else None
    return manifest is not None and manifest.key == wanted.key


async def clear(ctx: Context, model: InferenceModel) -> None:
    """Delete the Jobs whose samples the model doesn't want any more, or has had for long enough."""
    repositories = map(ModelRepository.parse, ctx.cache.all(MODEL_REPOSITORY.kind, model.namespace))
    wanted = {n for r in repositories for n in samples.kept([model], repository_uid=r.metadata.uid)}
    now = datetime.datetime.now(datetime.UTC)
    jobs_of_samples = ctx.cache.labelled(JOB.kind, model.namespace, names.labels(samples.COMPONENT))
    for job in samples.unneeded(jobs_of_samples, model, wanted=wanted, now=now):
        await ctx.children.delete(JOB, job)
