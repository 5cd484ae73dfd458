"""Verdicts on versions: what is still to be checked, what must be taken back, and how both are recorded."""

from __future__ import annotations

import dataclasses

from engine_builder.contract import CheckResult
from triton_operator.plan import versions
from triton_operator.plan.conditions import shorten
from triton_operator.plan.loads import Fault
from triton_operator.plan.trial import name_of
from triton_operator.plan.views import ServerView
from triton_operator.resources.inference_model import CheckStatus, InferenceModel
from triton_operator.resources.version import VersionState, VersionStatus

MESSAGE_LENGTH = 2048


@dataclasses.dataclass(frozen=True)
class Question:
    """What the keeper should check now: a version that answers on a pod under a name in Triton."""

    number: int
    engine: str
    pod: str
    name: str


def unchecked(model: InferenceModel, view: ServerView) -> list[Question]:
    """Return what the keeper should check now."""
    wanted = []
    for number, engine in sorted(view.in_tree.items()):
        pods = [pod.name for pod in view.pods if number in pod.ready]
        if _is_listed(view, number, engine) and pods and not is_checked(model, number, engine):
            wanted.append(Question(number, engine, min(pods), model.triton_name))
    trial = view.trial
    if trial is not None and trial.ready and not is_checked(model, trial.number, trial.engine):
        wanted.append(Question(trial.number, trial.engine, trial.pod, name_of(model.triton_name)))
    return wanted


def unloadable(model: InferenceModel, view: ServerView) -> list[tuple[int, str, Fault, str]]:
    """Return the versions that must be taken back, with their engines, since a pod can't load them.

    A candidate, of course. A promoted one as long as it was not yet served by all pods, if another
    version serves: later it is the pod that is at fault. The only one there is stays, for the pods
    that can load it, unless it brings containers down.
    """
    found = []
    trial = view.trial
    if trial is not None and trial.given_up is not None:
        found.append((trial.number, trial.engine, trial.given_up, f"pod {trial.pod}: {trial.trouble}"))
    for pod in view.pods:
        if pod.given_up is None:
            continue
        for number, engine in sorted(view.in_tree.items()):
            if number not in pod.ready and _may_go(model, view, number, pod.given_up):
                found.append((number, engine, pod.given_up, f"pod {pod.name}: {pod.trouble}"))
    return [
        each
        for each in found
        if _is_listed(view, each[0], each[1]) and versions.failed_check(model, each[0], each[1]) is None
    ]


def _may_go(model: InferenceModel, view: ServerView, number: int, fault: Fault) -> bool:
    entry = model.status.version(number)
    is_new = entry is not None and entry.served_since is None
    return is_new and (len(view.in_tree) > 1 or fault is Fault.CRASHED)


def _is_listed(view: ServerView, number: int, engine: str) -> bool:
    return any(b.number == number and b.engine and b.engine.name == engine for b in view.builds)


def is_checked(model: InferenceModel, number: int, engine: str) -> bool:
    """Tell whether there is a verdict, good or bad, that still holds."""
    return versions.check_of(model, number, engine) is not None


def load_verdict(model: InferenceModel, engine: str, fault: Fault, message: str) -> CheckStatus:
    """Return the verdict on a version that pods can't load."""
    return CheckStatus(
        engine=engine,
        minimum_cosine=model.spec.check.minimum_cosine,
        reason=fault.value,
        message=shorten(message, MESSAGE_LENGTH),
        config=versions.judged_under(model),
    )


def answer_verdict(
    model: InferenceModel, engine: str, result: CheckResult, *, samples: str | None
) -> CheckStatus:
    """Return the verdict on a version whose answers were compared, `samples` of the user's among them."""
    return CheckStatus(
        engine=engine,
        minimum_cosine=model.spec.check.minimum_cosine,
        reason=result.reason.value,
        message=shorten(result.message, MESSAGE_LENGTH) or None,
        cosine=f"{result.cosine:.6f}",
        max_error=f"{result.max_error:.2g}",
        samples=samples,
        config=versions.judged_under(model),
    )


def with_check(model: InferenceModel, number: int, check: CheckStatus) -> tuple[VersionStatus, ...]:
    """Return the status entries with the result of a check; an entry that was lost is made anew."""
    before = model.status.version(number) or VersionStatus(
        number=number, state=VersionState.PROMOTED, engines=(check.engine,)
    )
    others = tuple(entry for entry in model.status.versions if entry.number != number)
    rest = tuple(other for other in before.checks if other.engine != check.engine)
    return (*others, before.model_copy(update={"checks": (*rest, check)}))
