"""Engine: one entry of a store, made by one Job, kept while models use it and a while longer."""

from __future__ import annotations

import dataclasses
import datetime

from engine_builder.contract import StoreManifest
from triton_operator.clients.keeper import KeeperCallError
from triton_operator.clients.kube import ENGINE, POD
from triton_operator.controllers import attempts, compiling, converting, survey
from triton_operator.controllers.attempts import Work
from triton_operator.controllers.context import Context
from triton_operator.controllers.queue import Key
from triton_operator.plan import build_times, jobs, names, size, usage
from triton_operator.plan.attempts import Failed, Start, Succeeded
from triton_operator.plan.outcome import Outcome, OutcomeError, Ready, Waiting
from triton_operator.plan.usage import Usage
from triton_operator.resources.engine import BuildStatus, Engine
from triton_operator.resources.inference_model import InferenceModel
from triton_operator.resources.model_repository import ModelRepository
from triton_operator.resources.version import Backend


async def reconcile(ctx: Context, key: Key) -> float | None:
    """Bring one Engine into the store, or let it go when nobody has used it for long enough."""
    body = ctx.cache.get(ENGINE.kind, key.namespace, key.name)
    if body is None:
        return None
    engine = Engine.parse(body)
    if engine.metadata.deletion_timestamp is not None:
        return None
    found = _repository(ctx, engine)
    used = _usage(ctx, engine, found)
    if found is not None and used.expires_in is not None and used.expires_in <= 0:
        await ctx.children.delete(ENGINE, body)
        return None
    try:
        outcome = await _reconcile(ctx, engine, found, used)
    except survey.NothingKnownYet:
        return survey.RETRY_SECONDS
    except OutcomeError as error:
        outcome = error.outcome
    await _write_status(ctx, engine, outcome, used)
    waits = [w for w in (ctx.look_again(outcome), used.expires_in) if w is not None]
    return min(waits, default=None)


async def _reconcile(
    ctx: Context, engine: Engine, repository: ModelRepository | None, used: Usage
) -> Outcome:
    if repository is None:
        message = (
            f"ModelRepository {engine.spec.repository} does not exist in namespace {engine.namespace} yet"
        )
        return Waiting("RepositoryNotFound", message)
    place = (engine.namespace, repository.name)
    if ctx.volumes.snapshot(place) is None:
        if not ctx.volumes.tried(place):
            raise survey.NothingKnownYet
        return Waiting(
            "RepositoryNotReady", f"ModelRepository {repository.name} has no keeper that answers yet"
        )
    if _entry(ctx, engine) is not None:
        await attempts.clear_ended(ctx, engine.namespace, jobs.labels_of(engine))
        return Ready("Built", f"in the store of ModelRepository {repository.name}")
    return await _build(ctx, engine, repository, used)


def _work(ctx: Context, engine: Engine, repository: ModelRepository) -> Work | Outcome:
    """Return how the engine is made, or what must be there before."""
    if engine.spec.backend is Backend.OPENVINO:
        return converting.work(ctx, engine, repository)
    if engine.spec.source is None:
        return compiling.work(ctx, engine, repository)
    return Work(
        owner=engine,
        labels=jobs.labels_of(engine),
        job=lambda attempt: jobs.prepare(
            engine=engine,
            attempt=attempt,
            repository=repository,
            images=ctx.images(repository),
        ),
    )


async def _build(ctx: Context, engine: Engine, repository: ModelRepository, used: Usage) -> Outcome:
    work = _work(ctx, engine, repository)
    if isinstance(work, Outcome):
        return work
    found = attempts.verdict(ctx, work, seen=engine.status.attempt if engine.status.digest else None)
    if isinstance(found, Start | Succeeded):
        # The store may be ahead of the last look at it: nothing is ever built twice.
        try:
            await ctx.volumes.refresh((engine.namespace, repository.name))
        except KeeperCallError as error:
            raise OutcomeError(Waiting("KeeperUnreachable", str(error), after=2.0)) from error
        if _entry(ctx, engine) is not None:
            return Ready("Built", f"in the store of ModelRepository {repository.name}")
    if isinstance(found, Succeeded):
        if found.lost_after > 0:
            message = f"Job {found.job} has ended well; its engine is about to appear in the store"
            return Waiting("Building", message, after=min(2.0, found.lost_after))
        found = Start(attempt=found.attempt + 1)  # somebody removed it from the volume
    if isinstance(found, Failed) and found.retry_after is not None and not used.used_by:
        return Waiting(found.reason, f"{found.message} (no model uses this engine: it is not tried again)")
    if engine.target is None:
        return await attempts.advance(ctx, work, found)
    outcome = await attempts.advance(ctx, work, compiling.with_progress(ctx, engine, found))
    return compiling.told(ctx, engine, outcome)


def _repository(ctx: Context, engine: Engine) -> ModelRepository | None:
    return ctx.cache.read(ModelRepository, engine.namespace, engine.spec.repository)


def _entry(ctx: Context, engine: Engine) -> StoreManifest | None:
    store = ctx.volumes.snapshot((engine.namespace, engine.spec.repository))
    entry = store.engines.get(engine.name) if store is not None else None
    return entry if entry is not None and entry.key == engine.spec.key else None


def _usage(ctx: Context, engine: Engine, repository: ModelRepository | None) -> Usage:
    models = ctx.cache.read_all(InferenceModel, engine.namespace)
    return usage.of(
        engine,
        models,
        sites=survey.sites_on(
            ctx, engine.namespace, engine.spec.repository, uid=repository.metadata.uid if repository else ""
        ),
        retention_seconds=repository.spec.engine_retention_seconds if repository else None,
        now=datetime.datetime.now(datetime.UTC),
    )


async def _write_status(ctx: Context, engine: Engine, outcome: Outcome, used: Usage) -> None:
    entry = _entry(ctx, engine)
    newest = attempts.newest(ctx, engine.namespace, jobs.labels_of(engine))
    before = engine.status
    fields: dict[str, object] = {
        "attempt": newest.attempt if newest else before.attempt,
        "job": newest.name if newest else before.job,
        "progress": compiling.progress(ctx, engine) if entry is None else None,
        "build": _last_build(ctx, engine),
        "target": engine.spec.target.product if engine.spec.target else "cpu",
        "precision": engine.precision.value,
        "models": ",".join(used.used_by)[:1024],
        "used_by": used.used_by,
        "unused_since": used.unused_since,
        "size_bytes": before.size_bytes,
        "size": before.size,
        "digest": before.digest,
        "signature": before.signature,
    }
    if entry is not None:
        fields |= {
            "size_bytes": entry.size_bytes,
            "size": size.human(entry.size_bytes),
            "digest": names.digest(dict(entry.files)),
            "signature": dataclasses.asdict(entry.signature),
        }
    elif newest is not None and not newest.has_ended:  # it makes anew what is gone
        fields |= {"size_bytes": None, "size": None, "digest": None}
    await ctx.status.write(ENGINE, engine, outcome, **fields)


def _last_build(ctx: Context, engine: Engine) -> BuildStatus | None:
    """Return how long the latest attempt took that has ended; one that is news is counted."""
    labels, before = jobs.labels_of(engine), engine.status.build
    own = attempts.jobs_of(ctx, engine, labels)
    if not own:
        return before  # as at rest, when Jobs have had their time
    ended = build_times.latest(own, ctx.cache.labelled(POD.kind, engine.namespace, labels))
    if ended is None or (before is not None and before.job == ended.job):
        return before
    ctx.metrics.built(engine.spec.backend.value, ended.result, ended.seconds)
    if engine.target is not None and ended.held is not None:
        gpus = compiling.gpus_of(ctx, engine)
        ctx.metrics.held(
            engine.target.product,
            ended.result,
            seconds=ended.held * gpus,
            compiler_seconds=(ended.compiler or 0.0) * gpus,
        )
    return ended.status(has_gpus=engine.target is not None)
