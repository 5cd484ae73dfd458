"""The status of an InferenceModel: what every server and pod says, brought down to a few lines."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Mapping, Sequence

from triton_operator.plan import versions
from triton_operator.plan.conditions import shorten
from triton_operator.plan.outcome import Outcome, Ready, Stalled, Waiting, earliest, worst
from triton_operator.plan.versions import Build
from triton_operator.resources.inference_model import CheckStatus, InferenceModel
from triton_operator.resources.version import Version, VersionState, VersionStatus

VERSION_MESSAGE_LENGTH = 512
MOST_REMEMBERED = 500
"""Removed versions that a status keeps; the highest numbers stay."""

WAITING_SECONDS = 30.0
"""What waits behind something that is stalled is looked at again after so long."""

_NOT_LOOKED_AT = Waiting("Reconciling", "not looked at yet")


@dataclasses.dataclass(frozen=True)
class PodView:
    """What one pod does with a model: versions that answer, or what is in the way.

    `current` tells whether it runs the configuration that the tree has, `silence` why the pod
    can't be asked.
    """

    name: str
    ready: frozenset[int]
    current: bool = True
    trouble: str = ""
    silence: str = ""


@dataclasses.dataclass(frozen=True)
class ServerView:
    """What one server does with a model. `refusal` says why it does nothing with it."""

    name: str
    refusal: Outcome | None = None
    builds: tuple[Build, ...] = ()
    in_tree: Mapping[int, str] = dataclasses.field(default_factory=dict)
    wanted_pods: int = 0
    pods: tuple[PodView, ...] = ()

    def ready_pods(self, number: int) -> int:
        """Return on how many pods a version answers."""
        return sum(number in pod.ready for pod in self.pods)


@dataclasses.dataclass(frozen=True)
class ModelVerdict:
    """Everything that the status of a model says."""

    outcome: Outcome
    versions: tuple[VersionStatus, ...]
    serving: tuple[int, ...]


def verdict(
    model: InferenceModel, views: Sequence[ServerView], *, kept_engines: Collection[str]
) -> ModelVerdict:
    """Return the status of a model; `kept_engines` are those whose versions are remembered."""
    listed = sorted(model.spec.versions, key=lambda version: version.number)
    found = {v.number: [_on_server(model, v.number, view) for view in views] for v in listed}
    outcomes = {number: worst(each) or _NOT_LOOKED_AT for number, each in found.items()}
    entries = [_entry(model, version, views, outcomes[version.number]) for version in listed]
    entries += _removed(model, views, kept_engines)
    numbers = sorted({*outcomes, *(number for view in views for number in view.in_tree)})
    serving = tuple(number for number in numbers if _is_served(number, views))
    return ModelVerdict(
        outcome=_overall(model, outcomes, views, everything=list(itertools.chain(*found.values()))),
        versions=tuple(sorted(entries, key=lambda entry: entry.number)),
        serving=serving,
    )


def unchecked(model: InferenceModel, view: ServerView) -> list[tuple[int, str, str]]:
    """Return what the keeper should check now: (number, engine, pod) of versions that answer."""
    wanted = []
    for number, engine in sorted(view.in_tree.items()):
        pods = [pod.name for pod in view.pods if number in pod.ready]
        listed = any(b.number == number and b.engine and b.engine.name == engine for b in view.builds)
        if listed and pods and not _is_checked(model, number, engine):
            wanted.append((number, engine, min(pods)))
    return wanted


def _is_checked(model: InferenceModel, number: int, engine: str) -> bool:
    return versions.check_of(model, number, engine) is not None


def _on_server(model: InferenceModel, number: int, view: ServerView) -> Outcome:
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
        return Waiting("Publishing", f"about to appear in the tree of TritonServer {view.name}")
    return _on_pods(model, number, engine, view)


def _on_pods(model: InferenceModel, number: int, engine: str, view: ServerView) -> Outcome:
    ready = view.ready_pods(number)
    troubles = [
        f"pod {pod.name}: {pod.trouble}" for pod in view.pods if number not in pod.ready and pod.trouble
    ]
    if troubles:
        return Waiting(
            "LoadFailed", f"{ready}/{view.wanted_pods} pods of {view.name}; {'; '.join(troubles[:3])}"
        )
    if ready < view.wanted_pods:
        silent = [f"; pod {pod.name}: {pod.silence}" for pod in view.pods if pod.silence]
        message = f"loaded on {ready}/{view.wanted_pods} pods of TritonServer {view.name}"
        return Waiting("Loading", message + "".join(silent[:3]))
    current = sum(pod.current for pod in view.pods if number in pod.ready)
    if current < view.wanted_pods:
        message = f"{current}/{view.wanted_pods} pods of TritonServer {view.name} run the new configuration"
        return Waiting("Reloading", message)
    if view.wanted_pods and not _is_checked(model, number, engine):
        return Waiting("Checking", f"comparing the answers of TritonServer {view.name} with the source's")
    return Ready("Served", f"loaded on {ready}/{view.wanted_pods} pods of TritonServer {view.name}")


def _entry(
    model: InferenceModel, version: Version, views: Sequence[ServerView], outcome: Outcome
) -> VersionStatus:
    number = version.number
    before = model.status.version(number)
    found = [build for view in views for build in view.builds if build.number == number]
    needed = tuple(dict.fromkeys(str(b.engine.name) for b in found if b.engine and not b.is_reused))
    engines = needed + _still_served(before, views, needed)
    if before and any(build.is_reused for build in found):  # the number stays bound to what it meant
        engines = before.engines
    recorded = before.content_digest if before else None
    if recorded is None and any(build.is_ready for build in found):
        recorded = versions.content(model, version)
    check = before.check if before and before.check and before.check.engine in needed else None
    return VersionStatus(
        number=number,
        state=_state(number, views, found, outcome),
        uri=version.source.uri,
        sha256=versions.known_digest(model, version),
        content_digest=recorded,
        engines=engines,
        pods=_pods(number, views),
        reason=outcome.reason,
        message=shorten(outcome.message, VERSION_MESSAGE_LENGTH),
        check=check,
    )


def _still_served(
    before: VersionStatus | None, views: Sequence[ServerView], needed: Sequence[str]
) -> tuple[str, ...]:
    """Return the engines of the same content that trees still have, say of an older preparing algorithm."""
    if before is None:
        return ()
    served = {view.in_tree.get(before.number) for view in views}
    return tuple(engine for engine in before.engines if engine in served and engine not in needed)


def _state(
    number: int, views: Sequence[ServerView], found: Sequence[Build], outcome: Outcome
) -> VersionState:
    serving = any(number in view.in_tree for view in views)
    if isinstance(outcome, Stalled) and not serving:
        return VersionState.FAILED
    if serving:
        return VersionState.PROMOTED
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
        retiring = any(entry.number in view.in_tree for view in views)
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
        changes = {"state": state, "reason": reason, "message": message, "pods": pods}
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


def with_check(model: InferenceModel, number: int, check: CheckStatus) -> tuple[VersionStatus, ...]:
    """Return the status entries with the result of a check; an entry that was lost is made anew."""
    before = model.status.version(number) or VersionStatus(
        number=number, state=VersionState.PROMOTED, engines=(check.engine,)
    )
    others = tuple(entry for entry in model.status.versions if entry.number != number)
    return (*others, before.model_copy(update={"check": check}))
