"""Versions as one repository sees them: which engine each needs, and whether it is there."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

from engine_builder.contract import Reason, Signature, Snapshot
from triton_operator.plan import names
from triton_operator.plan.names import EngineKey, EngineName
from triton_operator.plan.outcome import Outcome, Ready, Stalled, Waiting
from triton_operator.resources.engine import engine_name
from triton_operator.resources.inference_model import InferenceModel
from triton_operator.resources.version import CheckStatus, Version, VersionState, VersionStatus

VERSION_REUSED = "VersionReused"


@dataclasses.dataclass(frozen=True)
class NeededEngine:
    """The engine that a version needs in one repository."""

    name: EngineName
    key: EngineKey
    sha256: str


@dataclasses.dataclass(frozen=True)
class Build:
    """A version on its way to an engine: which engine, and how far it is.

    `outcome` is Ready when the engine lies in the store with the right key.
    """

    number: int
    engine: NeededEngine | None
    content: str | None
    outcome: Outcome
    signature: Signature | None = None

    @property
    def is_ready(self) -> bool:
        """Tell whether pods can be given this version."""
        return isinstance(self.outcome, Ready)

    @property
    def is_reused(self) -> bool:
        """Tell whether the number belongs to other content already."""
        return self.outcome.reason == VERSION_REUSED


@dataclasses.dataclass(frozen=True)
class Outcomes:
    """What is heard from the makers: Engine objects by name, look-ups of digests by version number."""

    engines: Mapping[str, Outcome] = dataclasses.field(default_factory=dict)
    digests: Mapping[int, Outcome] = dataclasses.field(default_factory=dict)


def known_digest(model: InferenceModel, version: Version) -> str | None:
    """Return the digest of a version's source: the spec's, or the one found out from this very URI."""
    if version.source.sha256 is not None:
        return version.source.sha256
    remembered = model.status.version(version.number)
    if remembered is None or remembered.state is VersionState.REMOVED:
        return None
    return remembered.sha256 if remembered.uri == version.source.uri else None


def needed_engine(model: InferenceModel, version: Version, *, repository_uid: str) -> NeededEngine | None:
    """Return the engine that a version needs, or None while its digest is not known."""
    sha256 = known_digest(model, version)
    if sha256 is None:
        return None
    backend = model.spec.backend.value
    key = names.prepared_engine_key(
        backend=backend, sha256=sha256, build=build_options(version), repository_uid=repository_uid
    )
    return NeededEngine(name=EngineName(engine_name(model.spec.backend, key)), key=key, sha256=sha256)


def build_options(version: Version) -> dict[str, object]:
    """Return the options that decide over the bytes of a prepared engine.

    The batch size is not among them: a prepared ONNX is the same for every batch size.
    """
    del version
    return {}


def content(model: InferenceModel, version: Version) -> str | None:
    """Return what this number means, or None while the digest is not known."""
    sha256 = known_digest(model, version)
    if sha256 is None:
        return None
    return names.content_digest(sha256=sha256, build=version.build.to_manifest())


def builds(
    model: InferenceModel,
    *,
    repository_uid: str,
    store: Snapshot,
    outcomes: Outcomes,
    in_tree: Mapping[int, str],
) -> tuple[Build, ...]:
    """Return how far every version of the spec is, in the order of their numbers.

    `in_tree` are the engines that the server's tree has under the model's numbers: their
    signature came first.
    """
    found = [
        _build(
            model,
            version,
            repository_uid=repository_uid,
            store=store,
            outcomes=outcomes,
        )
        for version in sorted(model.spec.versions, key=lambda version: version.number)
    ]
    return _with_one_signature(found, own(model, found, in_tree), store)


def _build(
    model: InferenceModel,
    version: Version,
    *,
    repository_uid: str,
    store: Snapshot,
    outcomes: Outcomes,
) -> Build:
    number, meaning = version.number, content(model, version)
    engine = needed_engine(model, version, repository_uid=repository_uid)
    if engine is None:
        outcome = outcomes.digests.get(number, Waiting("Resolving", "finding out the digest of the source"))
        return Build(number=number, engine=None, content=None, outcome=outcome)
    reused = _reused(number, meaning, model.status.version(number))
    if reused is not None:
        return Build(number=number, engine=engine, content=meaning, outcome=reused)
    entry = store.engines.get(engine.name)
    if entry is not None and entry.key == engine.key:
        done = Ready("Built", f"engine {engine.name} is in the store")
        return Build(number=number, engine=engine, content=meaning, outcome=done, signature=entry.signature)
    outcome = outcomes.engines.get(engine.name, Waiting("Building", f"engine {engine.name} is being created"))
    if isinstance(outcome, Ready):  # the object says so, the store doesn't yet: our look at it is older
        outcome = Waiting("Building", f"engine {engine.name} is about to appear in the store", after=2.0)
    return Build(number=number, engine=engine, content=meaning, outcome=outcome)


def _reused(number: int, meaning: str | None, remembered: VersionStatus | None) -> Stalled | None:
    recorded = remembered.content_digest if remembered is not None else None
    if recorded is None or recorded == meaning:
        return None
    message = (
        f"version {number} once meant other content or another build; what a number means never changes: "
        f"list the new content under a number that was never used"
    )
    return Stalled(VERSION_REUSED, message)


def _with_one_signature(found: list[Build], in_tree: Mapping[int, str], store: Snapshot) -> tuple[Build, ...]:
    """Fail the versions whose signature differs from that of the version that came first.

    What the tree has came before all others, even if the spec no longer lists it: it serves
    until they do, and under one configuration with them.
    """
    known = {n: store.engines[e].signature for n, e in in_tree.items() if e in store.engines}
    known = known or {b.number: b.signature for b in found if b.is_ready and b.signature is not None}
    if not known:
        return tuple(found)
    first = min(known)
    wanted = comparable(known[first])
    return tuple(
        _mismatch(build, first)
        if build.is_ready and build.signature is not None and comparable(build.signature) != wanted
        else build
        for build in found
    )


def _mismatch(build: Build, first: int) -> Build:
    message = (
        f"inputs and outputs of version {build.number} differ from those of version {first}; all versions of "
        f"a model have one signature: serve it as another InferenceModel"
    )
    return dataclasses.replace(build, outcome=Stalled("SignatureMismatch", message))


def comparable(signature: Signature) -> object:
    """Return what must be equal in all versions: names, types, and shapes but for the batch."""
    return [
        sorted((t.name, t.datatype, len(t.shape), t.shape[1:]) for t in tensors)
        for tensors in (signature.inputs, signature.outputs)
    ]


def own(model: InferenceModel, found: Collection[Build], in_tree: Mapping[int, str]) -> dict[int, str]:
    """Return what a tree has of this model, and not of a former one that had its name.

    Where a digest is still to be found out nobody can tell yet: what serves goes on serving.
    """
    unknown = {build.number for build in found if build.engine is None}
    needed = {(build.number, str(build.engine.name)) for build in found if build.engine}
    remembered = {(entry.number, engine) for entry in model.status.versions for engine in entry.engines}
    return {n: e for n, e in in_tree.items() if n in unknown or (n, e) in needed | remembered}


def judged_under(model: InferenceModel) -> str:
    """Return what a verdict depends on besides engine and limit: the user's samples, and the serving."""
    samples = model.spec.check.samples
    own = names.digest(samples.to_manifest() if samples is not None else None)[:8]
    return f"{own}-{names.digest(model.spec.serving.to_manifest())[:8]}"


def check_of(model: InferenceModel, number: int, engine: str) -> CheckStatus | None:
    """Return the check that speaks for an engine, as long as what it was held against didn't change.

    Engines of one version in several repositories have the same content: one check is for all. A
    version that failed is tried again when the serving changes; one that passed is trusted then.
    """
    entry = model.status.version(number)
    check = entry.check if entry is not None else None
    if entry is None or check is None or check.minimum_cosine != model.spec.check.minimum_cosine:
        return None
    if check.config is not None:
        same = judged_under(model)
        passed = check.reason == Reason.SUCCEEDED.value
        if check.config != same and (not passed or check.config.split("-")[0] != same.split("-")[0]):
            return None
    return check if check.engine == engine or {check.engine, engine} <= {*entry.engines} else None


def is_passed(model: InferenceModel, number: int, engine: str) -> bool:
    """Tell whether a version's answers were found right."""
    check = check_of(model, number, engine)
    return check is not None and check.reason == Reason.SUCCEEDED.value


def failed_check(model: InferenceModel, number: int, engine: str) -> Stalled | None:
    """Return why a version is left out: its answers were found wrong, or pods can't load it."""
    check = check_of(model, number, engine)
    if check is None or check.reason == Reason.SUCCEEDED.value:
        return None
    return Stalled(check.reason, check.message or "the answers differ from those of the source")
