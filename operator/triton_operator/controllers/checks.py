"""Verdicts on versions: the keeper compares answers with the source's, the pods say what they can't load."""

from __future__ import annotations

from collections.abc import Sequence

from engine_builder.contract import CheckRequest, CheckResult, Reason
from triton_operator.clients.keeper import KeeperCallError
from triton_operator.clients.kube import TRITON_SERVER
from triton_operator.controllers import samples
from triton_operator.controllers.context import Context
from triton_operator.plan import model_config, triton_workload, verdicts
from triton_operator.plan.outcome import Outcome, Stalled, worst
from triton_operator.plan.verdicts import Question
from triton_operator.plan.views import ServerView
from triton_operator.resources.inference_model import CheckStatus, InferenceModel
from triton_operator.resources.triton_server import TritonServer


async def judge(
    ctx: Context, model: InferenceModel, views: Sequence[ServerView]
) -> tuple[InferenceModel, Outcome | None]:
    """Return the model with the verdicts that can be given now, and what is in the way of others."""
    obstacle = await _prepare_samples(ctx, model, views)
    for view in views:
        for number, engine, fault, message in verdicts.unloadable(model, view):
            ctx.metrics.checked(fault.value)
            model = _with(model, number, verdicts.load_verdict(model, engine, fault, message))
        for question in verdicts.unchecked(model, view):
            found = await _ask(ctx, model, view.name, question)
            if isinstance(found, Outcome):
                obstacle = obstacle or found
            elif found is not None:
                ctx.metrics.checked(found.reason)
                model = _with(model, question.number, found)
    return model, obstacle


async def _prepare_samples(
    ctx: Context, model: InferenceModel, views: Sequence[ServerView]
) -> Outcome | None:
    """Have the user's samples ready by the time that a version can be asked; return what keeps them."""
    await samples.clear(ctx, model)
    if model.spec.check.samples is None:
        return None
    engines = [
        (view, str(build.engine.name))
        for view in views
        for build in view.builds
        if build.is_ready and build.engine and not verdicts.is_checked(model, build.number, build.engine.name)
    ]
    found = [
        await samples.find(ctx, model, repository=repository, engine=engine)
        for view, engine in engines
        if (repository := _repository(ctx, model, view.name)) is not None
    ]
    return worst([outcome for outcome in found if isinstance(outcome, Outcome)])


def _repository(ctx: Context, model: InferenceModel, server: str) -> str | None:
    body = ctx.cache.get(TRITON_SERVER.kind, model.namespace, server)
    return TritonServer.parse(body).spec.repository if body is not None else None


def unknown_labels(model: InferenceModel, views: Sequence[ServerView]) -> Stalled | None:
    """Return what is wrong with the labels of the spec."""
    signatures = (build.signature for view in views for build in view.builds if build.signature is not None)
    first = next(signatures, None)
    unknown = model_config.unknown_labels(model.spec, first) if first is not None else ()
    if not unknown or first is None:
        return None
    outputs = ", ".join(tensor.name for tensor in first.outputs)
    message = f"serving.labels names {', '.join(unknown)}, but the model's outputs are {outputs}"
    return Stalled("UnknownOutput", message)


async def _ask(
    ctx: Context, model: InferenceModel, server: str, question: Question
) -> CheckStatus | Outcome | None:
    """Have the keeper compare a version's answers; None when it can't now."""
    repository = _repository(ctx, model, server)
    if repository is None:
        return None
    own = await samples.find(ctx, model, repository=repository, engine=question.engine)
    if isinstance(own, Outcome):
        return own
    keeper = ctx.volumes.keeper((model.namespace, repository))
    reports = ctx.fleet.reports((model.namespace, server))
    report = next((r for r in reports if r.pod == question.pod), None)
    if keeper is None or report is None:
        return None
    request = CheckRequest(
        address=f"{report.ip}:{triton_workload.GRPC_PORT}",
        model=question.name,
        version=str(question.number),
        engine=question.engine,
        minimum_cosine=float(model.spec.check.minimum_cosine),
        samples=own or "",
    )
    try:
        result = await keeper.check(request)
    except KeeperCallError:
        ctx.metrics.checked(Reason.UNREACHABLE.value)
        return None
    return _verdict(model, question.engine, result, own)


def _verdict(model: InferenceModel, engine: str, result: CheckResult, own: str | None) -> CheckStatus | None:
    if result.reason not in (Reason.SUCCEEDED, Reason.WRONG_ANSWERS):
        return None
    return verdicts.answer_verdict(model, engine, result).model_copy(update={"samples": own})


def _with(model: InferenceModel, number: int, check: CheckStatus) -> InferenceModel:
    entries = verdicts.with_check(model, number, check)
    return model.model_copy(update={"status": model.status.model_copy(update={"versions": entries})})
