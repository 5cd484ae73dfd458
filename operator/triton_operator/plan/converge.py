"""What one Triton pod must be told to serve what its server's tree says."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping


@dataclasses.dataclass(frozen=True)
class DesiredModel:
    """A model as the tree has it: the text and fingerprint of its config, and its versions."""

    config: str
    fingerprint: str
    versions: frozenset[int]


Desired = Mapping[str, DesiredModel]


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
    )
    return [step for step in (*unloads, *loads) if step is not None]


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
