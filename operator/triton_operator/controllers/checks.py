"""Verdicts on versions: the keeper compares answers with the source's, the pods say what they can't load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engine_builder.contract import CheckRequest, Reason
from triton_operator.clients.keeper import KeeperCallError
from triton_operator.controllers import samples, survey
from triton_operator.controllers.context import Context
from triton_operator.plan import model_config, triton_workload, verdicts
from triton_operator.plan.outcome import Outcome, Stalled, worst
from triton_operator.plan.verdicts import Question
from triton_operator.plan.views import ServerView
from triton_operator.resources.inference_model import CheckStatus, InferenceModel

OwnSamples = Mapping[tuple[str, str], str | Outcome | None]
"""Repository and prepared engine → entry of the store with the user's samples, or what is in their way."""


async def judge(
    ctx: Context, model: InferenceModel, views: Sequence[ServerView]
) -> tuple[InferenceModel, Outcome | None]:
    """Return the model with the verdicts that can be given now, and what is in the way of others."""
    own = await _own_samples(ctx, model, views)
    for view in views:
        for number, engine, fault, message in verdicts.unloadable(model, view):
            ctx.metrics.checked(fault.value)
            model = _with(model, number, verdicts.load_verdict(model, engine, fault, message))
        for question in verdicts.unchecked(model, view):
            found = await _ask(ctx, model, view, question, own)
            if found is not None:
                ctx.metrics.checked(found.reason)
                model = _with(model, question.number, found)
    return model, worst([found for found in own.values() if isinstance(found, Outcome)])


async def _own_samples(ctx: Context, model: InferenceModel, views: Sequence[ServerView]) -> OwnSamples:
    """Have the user's samples ready by the time that a version can be asked."""
    await samples.clear(ctx, model)
    if model.spec.check.samples is None:
        return {}
    own: dict[tuple[str, str], str | Outcome | None] = {}
    for view in views:
        repository = survey.repository_of(ctx, model.namespace, view.name)
        for engine in _unchecked_engines(model, view):
            if repository is not None and (repository, engine) not in own:
                own[repository, engine] = await samples.find(ctx, model, repository=repository, engine=engine)
    return own


def _unchecked_engines(model: InferenceModel, view: ServerView) -> list[str]:
    """Return the prepared engines of what is to be checked now, or when a pod has loaded it."""
    asked = {question.engine for question in verdicts.unchecked(model, view)}
    return [
        str(build.engine.prepared.name)
        for build in view.builds
        if build.engine is not None
        and (
            build.engine.name in asked
            or (build.is_ready and not verdicts.is_checked(model, build.number, build.engine.name))
        )
    ]


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
    ctx: Context, model: InferenceModel, view: ServerView, question: Question, own: OwnSamples
) -> CheckStatus | None:
    """Have the keeper compare a version's answers; None when it can't now."""
    repository = survey.repository_of(ctx, model.namespace, view.name)
    if repository is None:
        return None
    entry = own.get((repository, _prepared(view, question)))
    keeper = ctx.volumes.keeper((model.namespace, repository))
    reports = ctx.fleet.reports((model.namespace, view.name))
    report = next((r for r in reports if r.pod == question.pod), None)
    if isinstance(entry, Outcome) or keeper is None or report is None:
        return None
    request = CheckRequest(
        address=f"{report.ip}:{triton_workload.GRPC_PORT}",
        model=question.name,
        version=str(question.number),
        engine=question.engine,
        minimum_cosine=float(model.spec.check.minimum_cosine),
        samples=entry or "",
    )
    try:
        result = await keeper.check(request)
    except KeeperCallError:
        ctx.metrics.checked(Reason.UNREACHABLE.value)
        return None
    if result.reason not in (Reason.SUCCEEDED, Reason.WRONG_ANSWERS):
        return None
    return verdicts.answer_verdict(model, question.engine, result, samples=entry)


def _prepared(view: ServerView, question: Question) -> str:
    """Return the prepared engine behind the one that is asked, which knows the source's answers."""
    found = (b.engine for b in view.builds if b.number == question.number and b.engine is not None)
    return next((str(engine.prepared.name) for engine in found), question.engine)


def _with(model: InferenceModel, number: int, check: CheckStatus) -> InferenceModel:
    return model.with_status(versions=verdicts.with_check(model, number, check))
