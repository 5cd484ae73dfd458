"""InferenceModel: digests, engines, checks, and a status that tells how far every version is."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from triton_operator.clients.kube import ENGINE, INFERENCE_MODEL, TRITON_SERVER, AlreadyExists
from triton_operator.controllers import checks, digests, survey
from triton_operator.controllers.context import Context
from triton_operator.controllers.queue import Key
from triton_operator.plan import engines, history, model_status
from triton_operator.plan.model_status import Surroundings
from triton_operator.plan.outcome import Outcome, OutcomeError, Suspended
from triton_operator.plan.versions import Build, NeededEngine, Outcomes, failed_check, is_passed
from triton_operator.plan.views import ServerView
from triton_operator.resources.engine import Engine
from triton_operator.resources.inference_model import InferenceModel
from triton_operator.resources.version import Version, VersionState

_GOOD_TURNS = frozenset({*(state.value for state in VersionState), "Served", "Forgotten"}) - {"Failed"}


async def reconcile(ctx: Context, key: Key) -> float | None:
    """Bring one InferenceModel as far as its servers allow."""
    model = ctx.cache.read(InferenceModel, key.namespace, key.name)
    if model is None:
        return None  # its servers were told when it went, and unload it
    if model.metadata.deletion_timestamp is not None:
        return None
    try:
        outcome = await _reconcile(ctx, model)
    except survey.NothingKnownYet:
        return survey.RETRY_SECONDS
    except OutcomeError as error:
        outcome = error.outcome
        await ctx.status.write(INFERENCE_MODEL, model, outcome, **_fields(model, ()))
    return ctx.look_again(outcome)


async def _reconcile(ctx: Context, model: InferenceModel) -> Outcome:
    if model.spec.suspend:
        return await _leave_alone(ctx, model)
    before = model
    model, lookups = await digests.find(ctx, model)
    outcomes = Outcomes(engines=survey.engine_outcomes(ctx, model.namespace), digests=lookups)
    views = [survey.view_of(ctx, model, name, outcomes) for name in model.spec.servers]
    await _ensure_engines(ctx, model, views)
    judged, obstacle = await checks.judge(ctx, model, views)
    now = datetime.datetime.now(datetime.UTC)
    kept = {body["metadata"]["name"] for body in ctx.cache.all(ENGINE.kind, model.namespace)}
    fault = checks.unknown_labels(model, views)
    surroundings = Surroundings(kept_engines=kept, now=now, samples=obstacle, fault=fault)
    verdict = model_status.verdict(judged, views, surroundings)
    story = history.extended(
        before.status.history, before=before.status.versions, after=verdict.versions, now=now
    )
    model = model.with_status(versions=verdict.versions, history=story)
    fields = _fields(model, verdict.serving)
    told = await ctx.status.write(INFERENCE_MODEL, model, verdict.outcome, **fields)
    _tell_story(ctx, before, model, verdict.outcome if told else None)
    _tell_servers(ctx, model, views)
    return verdict.outcome


async def _leave_alone(ctx: Context, model: InferenceModel) -> Outcome:
    outcome = Suspended("Suspended", "spec.suspend is set: what is served stays so, and nothing else is done")
    fields = _fields(model, ()) | {"versions_serving": model.status.versions_serving}
    await ctx.status.write(INFERENCE_MODEL, model, outcome, **fields)
    return outcome


def _tell_story(ctx: Context, before: InferenceModel, after: InferenceModel, told: Outcome | None) -> None:
    """Make an Event of every new entry of the story, unless the outcome that was just `told` says it."""
    for entry in history.news(before.status.history, after.status.history):
        if told is not None and entry.reason == told.reason and entry.message in told.message:
            continue
        failed = entry.reason not in _GOOD_TURNS
        ctx.status.tell(after, reason=entry.reason, message=entry.message, warning=failed)


async def _ensure_engines(ctx: Context, model: InferenceModel, views: Sequence[ServerView]) -> None:
    """See to it that an Engine object stands for every version, and says what its users say now."""
    for repository, build in _builds_by_repository(ctx, model, views):
        version = model.spec.version(build.number)
        if build.engine is None or build.is_reused or version is None:
            continue
        for engine in build.engine.lineage:
            await _ensure_engine(ctx, model, version, engine, repository=repository)


async def _ensure_engine(
    ctx: Context, model: InferenceModel, version: Version, needed: NeededEngine, *, repository: str
) -> None:
    engine = ctx.cache.read(Engine, model.namespace, needed.name)
    if engine is None:
        manifest = engines.manifest(
            engine=needed,
            namespace=model.namespace,
            repository=repository,
            model=model,
            version=version,
        )
        try:
            ctx.cache.put(await ctx.children.create(ENGINE, manifest))
        except AlreadyExists:
            found = await ctx.kube.get(ENGINE, model.namespace, needed.name)
            if found is not None:
                ctx.cache.put(found)
        return
    if f"{model.name}/{version.number}" not in engine.status.used_by:
        ctx.queue.add(Key(ENGINE.kind, model.namespace, needed.name))
    if engine.spec.source is None:
        return  # compiled from another, which follows the source
    adjusted = engines.adjusted(engine, _uses(ctx, model.namespace, needed.name))
    if adjusted is not None:
        ctx.cache.put(await ctx.kube.apply(ENGINE, adjusted))


def _builds_by_repository(
    ctx: Context, model: InferenceModel, views: Sequence[ServerView]
) -> list[tuple[str, Build]]:
    found = []
    for view in views:
        repository = survey.repository_of(ctx, model.namespace, view.name)
        if repository is not None:
            found += [(repository, build) for build in view.builds]
    return found


def _uses(ctx: Context, namespace: str, engine: str) -> set[engines.Use]:
    """Return what the users of an engine say of it."""
    found = ctx.cache.read_all(InferenceModel, namespace)
    return {
        engines.use_of(model, version)
        for model in found
        for version in model.spec.versions
        if any(engine in e.engines for e in model.status.versions if e.number == version.number)
    }


def _tell_servers(ctx: Context, model: InferenceModel, views: Sequence[ServerView]) -> None:
    """Let servers put into their trees what is ready now, and take back what failed."""
    for view in views:
        missing = any(
            b.is_ready
            and b.engine
            and view.in_tree.get(b.number) != b.engine.name
            and (view.trial is None or is_passed(model, b.number, b.engine.name))
            for b in view.builds
        )
        held = [*view.in_tree.items(), *([(view.trial.number, view.trial.engine)] if view.trial else [])]
        wrong = any(failed_check(model, number, engine) for number, engine in held)
        if missing or wrong:
            ctx.queue.add(Key(TRITON_SERVER.kind, model.namespace, view.name))


def _fields(model: InferenceModel, serving: Sequence[int]) -> dict[str, object]:
    listed = sorted(version.number for version in model.spec.versions)
    return {
        "versions": model.status.versions,
        "history": model.status.history,
        "servers": ",".join(model.spec.servers),
        "versions_wanted": ",".join(map(str, listed)),
        "versions_serving": ",".join(map(str, serving)),
    }
