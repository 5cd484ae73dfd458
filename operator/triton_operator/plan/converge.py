"""What one Triton pod must be told to serve what its server's tree says."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet


@dataclasses.dataclass(frozen=True)
class DesiredModel:
    """A model as a pod must have it: the text and fingerprint of its config, and its versions.

    `trial` tells that it is a candidate: a version that nobody depends on yet.
    """

    config: str
    fingerprint: str
    versions: frozenset[int]
    trial: bool = False


Desired = Mapping[str, DesiredModel | None]
"""By model's name; None says that the model is left alone, whatever the pod does with it."""


@dataclasses.dataclass(frozen=True)
class IndexRow:
    """One row of Triton's RepositoryIndex."""

    model: str
    version: int
    state: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Load:
    """Load a model with this configuration."""

    model: str
    desired: DesiredModel


@dataclasses.dataclass(frozen=True)
class Unload:
    """Unload a model that the tree no longer has."""

    model: str


@dataclasses.dataclass(frozen=True)
class Wait:
    """A model is on its way up or down; look again soon."""

    model: str


Step = Load | Unload | Wait

LOADED = frozenset({"READY", "LOADING"})
MOVING = frozenset({"LOADING", "UNLOADING"})


def steps(desired: Desired, index: Iterable[IndexRow], fingerprints: Mapping[str, str | None]) -> list[Step]:
    """Return what to do on a pod, unloads first, since what they free may be needed.

    `fingerprints` are those of the configurations that the pod runs, of loaded models.
    """
    rows: dict[str, list[IndexRow]] = {}
    for row in index:
        rows.setdefault(row.model, []).append(row)
    unloads = (_leave(model, found) for model, found in sorted(rows.items()) if model not in desired)
    loads = (
        _step(model, wanted, rows.get(model, []), fingerprints.get(model))
        for model, wanted in sorted(desired.items())
        if wanted is not None
    )
    return [step for step in (*unloads, *loads) if step is not None]


def loadable(index: Iterable[IndexRow], model: str, versions: AbstractSet[int]) -> frozenset[int]:
    """Return what can still be loaded of a model of which Triton, refusing one version, loaded none.

    Empty when a version answers, or when Triton blames none or all of them.
    """
    rows = [row for row in index if row.model == model]
    if any(row.state == "READY" for row in rows):
        return frozenset()
    blamed = {
        row.version for row in rows if row.state == "UNAVAILABLE" and row.reason not in ("", "unloaded")
    }
    return frozenset(versions - blamed) if blamed & versions else frozenset()


def differences(step: Step, index: Iterable[IndexRow]) -> str:
    """Return in words what a step is needed for."""
    if isinstance(step, Unload):
        return f"model {step.model} is loaded, and should not be"
    if isinstance(step, Wait):
        return f"model {step.model} was loaded or unloaded by another hand"
    ready = ready_versions(index, step.model)
    missing, extra = sorted(step.desired.versions - ready), sorted(ready - step.desired.versions)
    if missing:
        return f"model {step.model} lacks version {', '.join(map(str, missing))}"
    if extra:
        return f"model {step.model} has version {', '.join(map(str, extra))} too"
    return f"model {step.model} runs another configuration"


def ready_versions(rows: Iterable[IndexRow], model: str) -> frozenset[int]:
    """Return the versions of a model that the index shows as ready."""
    return frozenset(row.version for row in rows if row.model == model and row.state == "READY")


def _leave(model: str, rows: list[IndexRow]) -> Step | None:
    if any(row.state in LOADED for row in rows):
        return Unload(model)
    # Its directory goes when it is down, so that must be noticed soon.
    return Wait(model) if any(row.state in MOVING for row in rows) else None


def _step(model: str, wanted: DesiredModel, rows: list[IndexRow], fingerprint: str | None) -> Step | None:
    if any(row.state in MOVING for row in rows):
        return Wait(model)
    ready = {row.version for row in rows if row.state == "READY"}
    if ready == wanted.versions and fingerprint == wanted.fingerprint:
        return None
    return Load(model, wanted)
