"""Samples of the user's own: the entries of the store that hold them with the answers to them."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Collection, Iterable

from triton_operator.plan import names, pods, versions
from triton_operator.plan.attempts import Object, condition, has_had_its_time
from triton_operator.resources.inference_model import InferenceModel

COMPONENT = "samples"
"""Component label of the Jobs that make the entries, and of their pods."""
_PREFIX = "samples-"


@dataclasses.dataclass(frozen=True)
class Entry:
    """An entry of the store: its name, and the key that stands in its MANIFEST."""

    name: str
    key: str

    @property
    def labels(self) -> dict[str, str]:
        """Return the labels by which the Jobs that make it are found."""
        return {**names.labels(COMPONENT), names.RESOLVE: self.name}


def entry(model: InferenceModel, engine: str) -> Entry | None:
    """Return where a model's samples lie with the answers of a prepared engine, or None without samples.

    Without a digest the file counts as it was at the first look: another path is another entry.
    """
    samples = model.spec.check.samples
    if samples is None:
        return None
    key = names.digest(COMPONENT, model.metadata.uid, engine, samples.sha256 or ["uri", samples.uri])
    return Entry(name=f"{_PREFIX}{key[:16]}", key=key)


def is_entry(name: str) -> bool:
    """Tell whether what lies in the store under this name are samples and no engine."""
    return name.startswith(_PREFIX)


def kept(models: Iterable[InferenceModel], *, repository_uid: str) -> set[str]:
    """Return the entries that these models want in a repository: one for each version's prepared engine."""
    found = set()
    for model in models:
        for version in model.spec.versions:
            engine = versions.prepared_engine(model, version, repository_uid=repository_uid)
            wanted = entry(model, engine.name) if engine is not None else None
            if wanted is not None:
                found.add(wanted.name)
    return found


def unneeded(
    jobs: Iterable[Object], model: InferenceModel, *, wanted: Collection[str], now: datetime.datetime
) -> list[Object]:
    """Return a model's Jobs whose samples it doesn't want any more, or has had for long enough.

    One that failed stays while its samples are wanted: it is what remembers the fault.
    """
    return [
        job
        for job in jobs
        if pods.is_owned_by(job, model.metadata.uid)
        and "deletionTimestamp" not in job["metadata"]
        and (
            job["metadata"]["labels"].get(names.RESOLVE) not in wanted
            or (condition(job, "Complete") is not None and has_had_its_time(job, now=now))
        )
    ]
