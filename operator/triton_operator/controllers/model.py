"""InferenceModel: digests, engines, checks, and a status that tells how far every version is."""

from __future__ import annotations

from collections.abc import Sequence

from engine_builder.contract import CheckRequest, CheckResult, Reason
from triton_operator.clients.keeper import KeeperCallError
from triton_operator.clients.kube import ENGINE, INFERENCE_MODEL, TRITON_SERVER, AlreadyExists
from triton_operator.controllers import digests, survey
from triton_operator.controllers.context import Context
from triton_operator.controllers.queue import Key
from triton_operator.plan import engines, model_status, triton_workload
from triton_operator.plan.model_status import ServerView
from triton_operator.plan.outcome import Outcome, OutcomeError
from triton_operator.plan.versions import Build, Outcomes, failed_check
from triton_operator.resources.engine import Engine
from triton_operator.resources.inference_model import CheckStatus, InferenceModel
from triton_operator.resources.triton_server import TritonServer


async def reconcile(ctx: Context, key: Key) -> float | None:
    """Bring one InferenceModel as far as its servers allow."""
    body = ctx.cache.get(INFERENCE_MODEL.kind, key.namespace, key.name)
    if body is None:
        return None  # its servers were told when it went, and unload it
    model = InferenceModel.parse(body)
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
    model, lookups = await digests.find(ctx, model)
    outcomes = Outcomes(engines=survey.engine_outcomes(ctx, model.namespace), digests=lookups)
    views = [survey.view_of(ctx, model, name, outcomes) for name in model.spec.servers]
    await _ensure_engines(ctx, model, views)
    model = await _check(ctx, model, views)
    kept = {body["metadata"]["name"] for body in ctx.cache.all(ENGINE.kind, model.namespace)}
    verdict = model_status.verdict(model, views, kept_engines=kept)
    model = model.model_copy(
        update={"status": model.status.model_copy(update={"versions": verdict.versions})}
    )
    await ctx.status.write(INFERENCE_MODEL, model, verdict.outcome, **_fields(model, verdict.serving))
    _tell_servers(ctx, model, views)
    return verdict.outcome


async def _ensure_engines(ctx: Context, model: InferenceModel, views: Sequence[ServerView]) -> None:
    """See to it that an Engine object stands for every version, and knows where its source lies now."""
    for repository, build in _builds_by_repository(ctx, model, views):
        if build.engine is None or build.is_reused:
            continue
        version = model.spec.version(build.number)
        body = ctx.cache.get(ENGINE.kind, model.namespace, build.engine.name)
        if version is None:
            continue
        if body is None:
            manifest = engines.manifest(
                engine=build.engine,
                namespace=model.namespace,
                repository=repository,
                model=model,
                version=version,
            )
            try:
                ctx.cache.put(await ctx.children.create(ENGINE, manifest))
            except AlreadyExists:
                found = await ctx.kube.get(ENGINE, model.namespace, build.engine.name)
                if found is not None:
                    ctx.cache.put(found)
            continue
        engine = Engine.parse(body)
        if f"{model.name}/{build.number}" not in engine.status.used_by:
            ctx.queue.add(Key(ENGINE.kind, model.namespace, build.engine.name))
        moved = engines.moved(engine, _sources(ctx, model.namespace, build.engine.name))
        if moved is not None:
            ctx.cache.put(await ctx.kube.apply(ENGINE, moved))


def _builds_by_repository(
    ctx: Context, model: InferenceModel, views: Sequence[ServerView]
) -> list[tuple[str, Build]]:
    found = []
    for view in views:
        body = ctx.cache.get(TRITON_SERVER.kind, model.namespace, view.name)
        if body is not None:
            repository = TritonServer.parse(body).spec.repository
            found += [(repository, build) for build in view.builds]
    return found


def _sources(ctx: Context, namespace: str, engine: str) -> set[str]:
    """Return where the users of an engine say that its source lies."""
    found = (InferenceModel.parse(body) for body in ctx.cache.all(INFERENCE_MODEL.kind, namespace))
    return {
        version.source.uri
        for model in found
        for version in model.spec.versions
        if any(engine in e.engines for e in model.status.versions if e.number == version.number)
    }


async def _check(ctx: Context, model: InferenceModel, views: Sequence[ServerView]) -> InferenceModel:
    """Have the keeper compare answers with the source's where that is still to be done."""
    for view in views:
        for number, engine, pod in model_status.unchecked(model, view):
            result = await _ask_keeper(ctx, model, view.name, number=number, engine=engine, pod=pod)
            if result is not None and result.reason in (Reason.SUCCEEDED, Reason.WRONG_ANSWERS):
                ctx.metrics.checked(result.reason.value)
                model = _with_check(model, number, engine, result)
    return model


async def _ask_keeper(
    ctx: Context, model: InferenceModel, server: str, *, number: int, engine: str, pod: str
) -> CheckResult | None:
    body = ctx.cache.get(TRITON_SERVER.kind, model.namespace, server)
    if body is None:
        return None
    keeper = ctx.volumes.keeper((model.namespace, TritonServer.parse(body).spec.repository))
    report = next((r for r in ctx.fleet.reports((model.namespace, server)) if r.pod == pod), None)
    if keeper is None or report is None:
        return None
    request = CheckRequest(
        address=f"{report.ip}:{triton_workload.GRPC_PORT}",
        model=model.triton_name,
        version=str(number),
        engine=engine,
        minimum_cosine=float(model.spec.check.minimum_cosine),
    )
    try:
        return await keeper.check(request)
    except KeeperCallError:
        ctx.metrics.checked(Reason.UNREACHABLE.value)
        return None


def _with_check(model: InferenceModel, number: int, engine: str, result: CheckResult) -> InferenceModel:
    check = CheckStatus(
        engine=engine,
        minimum_cosine=model.spec.check.minimum_cosine,
        reason=result.reason.value,
        message=result.message[:2048] or None,
        cosine=f"{result.cosine:.6f}",
        max_error=f"{result.max_error:.2g}",
    )
    entries = model_status.with_check(model, number, check)
    return model.model_copy(update={"status": model.status.model_copy(update={"versions": entries})})


def _tell_servers(ctx: Context, model: InferenceModel, views: Sequence[ServerView]) -> None:
    """Let servers put into their trees what is ready now, and take back what answered wrongly."""
    for view in views:
        missing = any(
            b.is_ready and b.engine and view.in_tree.get(b.number) != b.engine.name for b in view.builds
        )
        wrong = any(failed_check(model, number, engine) for number, engine in view.in_tree.items())
        if missing or wrong:
            ctx.queue.add(Key(TRITON_SERVER.kind, model.namespace, view.name))


def _fields(model: InferenceModel, serving: Sequence[int]) -> dict[str, object]:
    listed = sorted(version.number for version in model.spec.versions)
    return {
        "versions": model.status.versions,
        "servers": ",".join(model.spec.servers),
        "versions_wanted": ",".join(map(str, listed)),
        "versions_serving": ",".join(map(str, serving)),
    }
