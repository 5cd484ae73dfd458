"""Digests of sources that the spec doesn't state: found out once by a Job, then remembered."""

from __future__ import annotations

from triton_operator.controllers import attempts
from triton_operator.controllers.attempts import Work
from triton_operator.controllers.context import Context
from triton_operator.plan import jobs, names, versions
from triton_operator.plan.attempts import Start, Succeeded
from triton_operator.plan.outcome import Outcome, OutcomeError, Waiting
from triton_operator.resources.inference_model import InferenceModel
from triton_operator.resources.model_repository import ModelRepository
from triton_operator.resources.triton_server import TritonServer
from triton_operator.resources.version import Version, VersionState, VersionStatus


async def find(ctx: Context, model: InferenceModel) -> tuple[InferenceModel, dict[int, Outcome]]:
    """Return the model with the digests that are known now in its status, and how far the others are."""
    outcomes: dict[int, Outcome] = {}
    for version in model.spec.versions:
        if versions.known_digest(model, version) is not None:
            await attempts.clear_ended(ctx, model.namespace, _labels(model, version))
            continue
        try:
            found = await _look_up(ctx, model, version)
        except OutcomeError as error:
            found = error.outcome
        if isinstance(found, str):
            model = _with_digest(model, version, found)
        elif found is not None:
            outcomes[version.number] = found
    return model, outcomes


async def _look_up(ctx: Context, model: InferenceModel, version: Version) -> str | Outcome | None:
    repository = _repository(ctx, model)
    if repository is None:
        return None  # nothing to prepare it in yet: the server's own words say more
    work = Work(
        owner=model,
        labels=_labels(model, version),
        job=lambda attempt: jobs.resolve(
            model=model,
            version=version,
            attempt=attempt,
            repository=repository,
            images=ctx.images(repository),
        ),
    )
    found = attempts.verdict(ctx, work)
    if isinstance(found, Succeeded):
        if found.report is not None and found.report.sha256:
            return found.report.sha256
        if found.lost_after > 0:
            message = f"Job {found.job} has ended well; its answer is being read"
            return Waiting("Resolving", message, after=min(2.0, found.lost_after))
        found = Start(attempt=found.attempt + 1)  # its pod went before its answer was read
    return await attempts.advance(ctx, work, found)


def _labels(model: InferenceModel, version: Version) -> dict[str, str]:
    base = names.resolve_name(model_uid=model.metadata.uid, number=version.number, uri=version.source.uri)
    return {**names.labels("resolve"), names.RESOLVE: base}


def _repository(ctx: Context, model: InferenceModel) -> ModelRepository | None:
    """Return the first repository that any of the model's servers stands on: its settings are used."""
    for name in model.spec.servers:
        server = ctx.cache.read(TritonServer, model.namespace, name)
        if server is None:
            continue
        found = ctx.cache.read(ModelRepository, model.namespace, server.spec.repository)
        if found is not None:
            return found
    return None


def _with_digest(model: InferenceModel, version: Version, sha256: str) -> InferenceModel:
    known = {"uri": version.source.uri, "sha256": sha256}
    before = model.status.version(version.number) or VersionStatus(
        number=version.number, state=VersionState.RESOLVING
    )
    entry = before.model_copy(update={**known, "state": VersionState.RESOLVING})
    others = tuple(e for e in model.status.versions if e.number != version.number)
    return model.with_status(versions=(*others, entry))
