"""The status of an InferenceModel: what every server and pod says, brought down to a few lines."""

from __future__ import annotations

import dataclasses
import datetime
import itertools
from collections.abc import Collection, Mapping, Sequence

from engine_builder.contract import Reason
from triton_operator.plan import verdicts, versions
from triton_operator.plan.conditions import shorten
from triton_operator.plan.outcome import Outcome, Ready, Stalled, Waiting, earliest, worst
from triton_operator.plan.trial import name_of
from triton_operator.plan.versions import Build
from triton_operator.plan.views import PodView, ServerView, TrialView
from triton_operator.resources.inference_model import InferenceModel
from triton_operator.resources.version import Version, VersionState, VersionStatus

VERSION_MESSAGE_LENGTH = 512
MOST_REMEMBERED = 500
"""Removed versions that a status keeps; the highest numbers stay."""

WAITING_SECONDS = 30.0
"""What waits behind something that is stalled is looked at again after so long."""

CHECK_AGAIN_SECONDS = 2.0
"""After so long a check that got no answer is tried again."""

_NOT_LOOKED_AT = Waiting("Reconciling", "not looked at yet")


@dataclasses.dataclass(frozen=True)
class ModelVerdict:
    """Everything that the status of a model says."""

    outcome: Outcome
    versions: tuple[VersionStatus, ...]
    serving: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """What a verdict rests on besides model and servers.

    `kept_engines` are those whose versions are remembered; `samples` says why the user's samples
    can't be compared with yet, `fault` what is wrong with the spec; `now` is the time.
    """

    kept_engines: Collection[str]
    now: datetime.datetime
    samples: Outcome | None = None
    fault: Stalled | None = None


def verdict(model: InferenceModel, views: Sequence[ServerView], surroundings: Surroundings) -> ModelVerdict:
    """Return the status of a model."""
    listed = sorted(model.spec.versions, key=lambda version: version.number)
    found = {
        v.number: [_on_server(model, v.number, view, surroundings.samples) for view in views] for v in listed
    }
    outcomes = {number: worst(each) or _NOT_LOOKED_AT for number, each in found.items()}
    entries = [
        _entry(model, version, views, outcomes[version.number], surroundings.now) for version in listed
    ]
    entries += _removed(model, views, surroundings.kept_engines)
    numbers = sorted({*outcomes, *(number for view in views for number in view.in_tree)})
    serving = tuple(number for number in numbers if _is_served(number, views))
    overall = _overall(model, outcomes, views, everything=list(itertools.chain(*found.values())))
    if surroundings.fault is not None and not isinstance(overall, Stalled):
        overall = surroundings.fault
    return ModelVerdict(
        outcome=_with_those_that_serve(
            overall, [n for n in serving if not isinstance(outcomes.get(n), Stalled)]
        ),
        versions=tuple(sorted(entries, key=lambda entry: entry.number)),
        serving=serving,
    )


def _on_server(model: InferenceModel, number: int, view: ServerView, samples: Outcome | None) -> Outcome:
    if view.refusal is not None:
        return view.refusal
    build = next((build for build in view.builds if build.number == number), None)
    if build is None:
        return Waiting("Reconciling", f"TritonServer {view.name} was not looked at yet")
    if not build.is_ready:
        return build.outcome
    engine = str(build.engine.name) if build.engine else ""
    failed = versions.failed_check(model, number, engine)
    if failed is not None:
        return failed
    if view.in_tree.get(number) != engine:
        return _before_the_tree(model, number, engine, view, samples)
    return _on_pods(model, number, engine, view, samples)


def _before_the_tree(
    model: InferenceModel, number: int, engine: str, view: ServerView, samples: Outcome | None
) -> Outcome:
    trial = view.trial
    if trial is None or versions.is_passed(model, number, engine):
        return Waiting("Publishing", f"about to appear in the tree of TritonServer {view.name}")
    if trial.number != number:
        return Waiting("Queued", f"to be tried after version {trial.number}")
    return _on_trial(model, view, trial, samples)


def _on_trial(model: InferenceModel, view: ServerView, trial: TrialView, samples: Outcome | None) -> Outcome:
    name = name_of(model.triton_name)
    if not trial.pod:
        return Waiting(
            "Queued", f"to be tried as {name} as soon as TritonServer {view.name} has a pod for it"
        )
    if trial.trouble:
        return Waiting("LoadFailed", f"{name} on pod {trial.pod}: {trial.trouble}")
    if not trial.ready:
        return Waiting("Trying", f"being loaded as {name} on pod {trial.pod}")
    if samples is not None:
        return samples
    message = f"comparing the answers of {name} on pod {trial.pod} with the source's"
    return Waiting("Checking", message, after=CHECK_AGAIN_SECONDS)


def _on_pods(
    model: InferenceModel, number: int, engine: str, view: ServerView, samples: Outcome | None
) -> Outcome:
    if not view.agreed:
        return Waiting("Publishing", f"TritonServer {view.name} is about to tell its pods of the change")
    lacking = [pod for pod in view.pods if number not in pod.ready or not pod.current]
    ready = view.ready_pods(number)
    current = sum(pod.current for pod in view.pods if number in pod.ready)
    loaded = f"loaded on {ready}/{view.wanted_pods} pods of TritonServer {view.name}"
    if view.lent:
        loaded += f" ({view.lent})"
    if ready < view.wanted_pods:
        return _not_yet(lacking, "Loading", loaded)
    if current < view.wanted_pods:
        return _not_yet(lacking, "Reloading", f"{loaded}, {current} with the new configuration")
    if view.wanted_pods and not verdicts.is_checked(model, number, engine):
        message = f"comparing the answers of TritonServer {view.name} with the source's"
        return samples or Waiting("Checking", message, after=CHECK_AGAIN_SECONDS)
    return Ready("Served", loaded)


def _not_yet(lacking: Sequence[PodView], reason: str, so_far: str) -> Outcome:
    """Say what keeps a version from all pods, and whether it is still being tried."""
    troubled = [pod for pod in lacking if pod.trouble]
    if troubled:
        troubles = "; ".join(f"pod {pod.name}: {pod.trouble}" for pod in troubled[:3])
        kind = Stalled if all(pod.given_up for pod in troubled) else Waiting
        return kind("LoadFailed", f"{so_far}; {troubles}")
    silent = [f"; pod {pod.name}: {pod.silence}" for pod in lacking if pod.silence]
    return Waiting(reason, so_far + "".join(silent[:3]))


def _with_those_that_serve(outcome: Outcome, serving: Sequence[int]) -> Outcome:
    if isinstance(outcome, Ready) or not serving:
        return outcome
    noun = "version" if len(serving) == 1 else "versions"
    message = f"{outcome.message}; {noun} {', '.join(map(str, serving))} served meanwhile"
    return dataclasses.replace(outcome, message=message)


def _entry(
    model: InferenceModel,
    version: Version,
    views: Sequence[ServerView],
    outcome: Outcome,
    now: datetime.datetime,
) -> VersionStatus:
    number = version.number
    before = model.status.version(number)
    found = [build for view in views for build in view.builds if build.number == number]
    needed = tuple(
        dict.fromkeys(
            str(engine.name)
            for build in found
            if build.engine and not build.is_reused
            for engine in build.engine.lineage
        )
    )
    engines = needed + _still_served(before, views, needed)
    if before and any(build.is_reused for build in found):  # the number stays bound to what it meant
        engines = before.engines
    recorded = before.content_digest if before else None
    if recorded is None and any(build.is_ready for build in found):
        recorded = versions.content(model, version)
    checks = tuple(check for check in before.checks if check.engine in needed) if before else ()
    return VersionStatus(
        number=number,
        state=_state(number, before, views, found, outcome),
        uri=version.source.uri,
        sha256=versions.known_digest(model, version),
        content_digest=recorded,
        engines=engines,
        pods=_pods(number, views),
        reason=outcome.reason,
        message=shorten(outcome.message, VERSION_MESSAGE_LENGTH),
        checks=checks,
        served_since=_served_since(number, before, views, now),
    )


def _served_since(
    number: int, before: VersionStatus | None, views: Sequence[ServerView], now: datetime.datetime
) -> datetime.datetime | None:
    """Return since when a version is promoted and was once served by all pods.

    What a tree holds without a word about it in the status, as after its loss, is no news either.
    """
    if not _is_in_a_tree(number, before, views):
        return None
    if before is not None and before.served_since is not None:
        return before.served_since
    return now.replace(microsecond=0) if before is None or _is_served(number, views) else None


def _still_served(
    before: VersionStatus | None, views: Sequence[ServerView], needed: Sequence[str]
) -> tuple[str, ...]:
    """Return the engines of the same content that trees still have, say of an older preparing algorithm."""
    if before is None:
        return ()
    served = {view.in_tree.get(before.number) for view in views}
    return tuple(engine for engine in before.engines if engine in served and engine not in needed)


def _is_in_a_tree(number: int, before: VersionStatus | None, views: Sequence[ServerView]) -> bool:
    """Tell whether a version is promoted; of trees that can't be looked at the last word holds."""
    was = before is not None and before.state in (VersionState.PROMOTED, VersionState.RETIRING)
    return any(number in view.in_tree or (was and not view.known) for view in views)


def _state(
    number: int,
    before: VersionStatus | None,
    views: Sequence[ServerView],
    found: Sequence[Build],
    outcome: Outcome,
) -> VersionState:
    serving = _is_in_a_tree(number, before, views)
    if isinstance(outcome, Stalled) and not serving:
        return VersionState.FAILED
    if serving:
        return VersionState.PROMOTED
    if any(view.trial is not None and view.trial.number == number for view in views):
        return VersionState.CANDIDATE
    if found and all(build.is_ready for build in found):
        return VersionState.BUILT
    if any(build.engine for build in found):
        return VersionState.BUILDING
    return VersionState.RESOLVING


def _pods(number: int, views: Sequence[ServerView]) -> str:
    return f"{sum(view.ready_pods(number) for view in views)}/{sum(view.wanted_pods for view in views)}"


def _removed(
    model: InferenceModel, views: Sequence[ServerView], kept_engines: Collection[str]
) -> list[VersionStatus]:
    """Remember what removed numbers meant for as long as their engines are kept."""
    listed = {version.number for version in model.spec.versions}
    remembered = []
    for entry in model.status.versions:
        retiring = _is_in_a_tree(entry.number, entry, views)
        meant_something = entry.content_digest is not None and any(e in kept_engines for e in entry.engines)
        if entry.number in listed or not (retiring or meant_something):
            continue
        state = VersionState.RETIRING if retiring else VersionState.REMOVED
        reason, message = (
            ("Retiring", "serves until the listed versions do")
            if retiring
            else (
                "Removed",
                "no longer listed; the number stays bound to its content while the engine is kept",
            )
        )
        pods = _pods(entry.number, views) if retiring else None
        changes: dict[str, object] = {"state": state, "reason": reason, "message": message, "pods": pods}
        if not retiring:
            changes["served_since"] = None
        # listed again, what failed is tried again
        changes["checks"] = tuple(c for c in entry.checks if c.reason == Reason.SUCCEEDED.value)
        remembered.append(entry.model_copy(update=changes))
    return sorted(remembered, key=lambda entry: entry.number)[-MOST_REMEMBERED:]


def _is_served(number: int, views: Sequence[ServerView]) -> bool:
    having = [view for view in views if view.wanted_pods]
    return bool(having) and all(view.ready_pods(number) >= view.wanted_pods for view in having)


def _overall(
    model: InferenceModel,
    outcomes: Mapping[int, Outcome],
    views: Sequence[ServerView],
    *,
    everything: list[Outcome],
) -> Outcome:
    top = worst(list(outcomes.values()))
    if top is None or isinstance(top, Ready):
        numbers = ",".join(map(str, outcomes))
        ready = sum(min((view.ready_pods(n) for n in outcomes), default=0) for view in views)
        wanted = sum(view.wanted_pods for view in views)
        noun = "version" if len(outcomes) == 1 else "versions"
        servers = ", ".join(model.spec.servers)
        return Ready("Served", f"{noun} {numbers} served by {ready}/{wanted} pods of {servers}")
    number = next(number for number, outcome in outcomes.items() if outcome is top)
    message = f"version {number}: {top.message}"
    after = earliest(everything)
    if isinstance(top, Stalled):
        waits = any(isinstance(outcome, Waiting) for outcome in everything)
        return Stalled(top.reason, message, after=after or (WAITING_SECONDS if waits else None))
    return Waiting(top.reason, message, after=after)
