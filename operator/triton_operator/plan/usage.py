"""Who uses an engine, and how long one that nobody uses may stay."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterable

from triton_operator.plan import versions
from triton_operator.plan.versions import Sites
from triton_operator.resources.engine import Engine
from triton_operator.resources.inference_model import InferenceModel
from triton_operator.resources.version import Version

GRACE_SECONDS = 10.0
"""A retention of 0 s must not take an engine from the model that is about to use it."""

MOST_LISTED = 1024


@dataclasses.dataclass(frozen=True)
class Usage:
    """Model versions that use an engine (`model/number`); since when none, and how long it stays."""

    used_by: tuple[str, ...]
    unused_since: datetime.datetime | None = None
    expires_in: float | None = None


def of(
    engine: Engine,
    models: Iterable[InferenceModel],
    *,
    sites: Sites,
    retention_seconds: float | None,
    now: datetime.datetime,
) -> Usage:
    """Return the usage of an engine of the repository that all `sites` stand on.

    `retention_seconds` of None keeps it for good.
    """
    users = sorted(
        f"{model.name}/{version.number}"
        for model in models
        for version in model.spec.versions
        if _needs(model, version, engine, sites)
    )
    if users:
        return Usage(used_by=tuple(users[:MOST_LISTED]))
    since = engine.status.unused_since or now.replace(microsecond=0)
    if retention_seconds is None:
        return Usage(used_by=(), unused_since=since)
    kept = max(retention_seconds, GRACE_SECONDS)
    return Usage(used_by=(), unused_since=since, expires_in=kept - (now - since).total_seconds())


def _needs(model: InferenceModel, version: Version, engine: Engine, sites: Sites) -> bool:
    return any(each.name == engine.name for each in versions.engines_of(model, version, sites))
