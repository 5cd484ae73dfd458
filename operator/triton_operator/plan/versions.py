"""Versions as one repository sees them: which engine each needs, and whether it is there."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

from engine_builder.contract import Precision, Reason, Signature, Snapshot, Target
from triton_operator.plan import names
from triton_operator.plan.names import EngineKey, EngineName
from triton_operator.plan.outcome import Outcome, Ready, Stalled, Waiting
from triton_operator.resources.engine import engine_name
from triton_operator.resources.inference_model import InferenceModel
from triton_operator.resources.version import (
    Backend,
    Calibration,
    CheckStatus,
    Version,
    VersionState,
    VersionStatus,
)

VERSION_REUSED = "VersionReused"
_UNCONVERTED = frozenset({Precision.FP32, Precision.TF32})

COMPILED = frozenset({Backend.TENSORRT})
"""Backends whose engines are compiled for a GPU, from the prepared one."""


@dataclasses.dataclass(frozen=True)
class Site:
    """Where a version is served, as far as its engines depend on it.

    Without a `target` the server has no GPU, or it isn't known yet: nothing is compiled for it.
    """

    repository_uid: str
    release: str = ""
    target: Target | None = None


@dataclasses.dataclass(frozen=True)
class Sites:
    """A repository and the servers that stand on it, by name."""

    repository_uid: str
    servers: Mapping[str, Site] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Compilation:
    """What an engine is made from, for which hardware and release: for any CPU without a target."""

    origin: NeededEngine
    target: Target | None = None
    release: str = ""


@dataclasses.dataclass(frozen=True)
class NeededEngine:
    """An engine that a version needs: one that pods load, or the one that it is compiled from.

    `sha256` is the source's; a prepared engine has no `compilation`.
    """

    name: EngineName
    key: EngineKey
    backend: Backend
    sha256: str
    compilation: Compilation | None = None

    @property
    def lineage(self) -> tuple[NeededEngine, ...]:
        """Return what must be made, in this order; the engine itself is the last."""
        return (self,) if self.compilation is None else (*self.compilation.origin.lineage, self)

    @property
    def prepared(self) -> NeededEngine:
        """Return the prepared engine at the beginning, which knows the source's answers."""
        return self.lineage[0]


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


def needed_engine(model: InferenceModel, version: Version, site: Site) -> NeededEngine | None:
    """Return the engine that pods of a site load, or None while its digest or the target is not known."""
    prepared = prepared_engine(model, version, repository_uid=site.repository_uid)
    if prepared is None:
        return None
    if model.spec.backend not in COMPILED:
        return _for_cpus(model, prepared)
    return _compiled_engine(version, prepared, site.target, site.release) if site.target else None


def prepared_engine(model: InferenceModel, version: Version, *, repository_uid: str) -> NeededEngine | None:
    """Return what is made of a version's source for all targets, or None while its digest is not known."""
    sha256 = known_digest(model, version)
    if sha256 is None:
        return None
    backend = Backend.ONNX_RUNTIME  # which can serve it as it is
    key = names.prepared_engine_key(
        backend=backend.value, sha256=sha256, build=build_options(version), repository_uid=repository_uid
    )
    return NeededEngine(EngineName(engine_name(backend, key)), key, backend, sha256)


def engines_of(model: InferenceModel, version: Version, sites: Sites) -> list[NeededEngine]:
    """Return every engine that a version needs in a repository, those that others are made from included."""
    prepared = prepared_engine(model, version, repository_uid=sites.repository_uid)
    if prepared is None:
        return []
    if model.spec.backend not in COMPILED:
        return list(_for_cpus(model, prepared).lineage)
    own = [site for server, site in sites.servers.items() if server in model.spec.servers]
    compiled = [_compiled_engine(version, prepared, s.target, s.release) for s in own if s.target is not None]
    return [prepared, *compiled]


def _for_cpus(model: InferenceModel, prepared: NeededEngine) -> NeededEngine:
    """Return the engine of a backend that needs no GPU: the prepared one, or what is converted from it."""
    if model.spec.backend is not Backend.OPENVINO:
        return prepared
    key = names.converted_engine_key(prepared_key=prepared.key)
    name = EngineName(engine_name(Backend.OPENVINO, key))
    return NeededEngine(name, key, Backend.OPENVINO, prepared.sha256, Compilation(prepared))


def _compiled_engine(version: Version, prepared: NeededEngine, target: Target, release: str) -> NeededEngine:
    options = version.build.compile_options
    key = names.compiled_engine_key(
        prepared_key=prepared.key, target=target, release=release, options=options
    )
    return NeededEngine(
        EngineName(engine_name(Backend.TENSORRT, key)),
        key,
        Backend.TENSORRT,
        prepared.sha256,
        Compilation(prepared, target, release),
    )


def build_options(version: Version) -> dict[str, object]:
    """Return the options that decide over the bytes of a prepared engine.

    The batch size is not among them: a prepared ONNX is the same for every batch size. Nor is what
    FP32 and TF32 share with an engine that was prepared before there was a precision: nothing.
    """
    build = version.build
    if build.precision in _UNCONVERTED:
        return {}
    options: dict[str, object] = {"precision": build.precision.value}
    if not build.keep_io:
        options["keepIO"] = False
    if build.calibration is not None:
        options["calibration"] = calibrated_on(build.calibration)
    return options


def calibrated_on(calibration: Calibration) -> object:
    """Return what calibration data is known by: without a digest the file counts as at the first look."""
    return "generated" if calibration.generated else calibration.sha256 or ["uri", calibration.uri]


def content(model: InferenceModel, version: Version) -> str | None:
    """Return what this number means, or None while the digest is not known."""
    sha256 = known_digest(model, version)
    if sha256 is None:
        return None
    return names.content_digest(sha256=sha256, build=version.build.to_meaning())


def builds(
    model: InferenceModel,
    site: Site,
    *,
    store: Snapshot,
    outcomes: Outcomes,
    in_tree: Mapping[int, str],
) -> tuple[Build, ...]:
    """Return how far every version of the spec is, in the order of their numbers.

    `in_tree` are the engines that the server's tree has under the model's numbers: their
    signature came first.
    """
    found = [
        _build(model, version, site, store=store, outcomes=outcomes)
        for version in sorted(model.spec.versions, key=lambda version: version.number)
    ]
    return _with_one_signature(found, own(model, found, in_tree), store)


def _build(
    model: InferenceModel, version: Version, site: Site, *, store: Snapshot, outcomes: Outcomes
) -> Build:
    number, meaning = version.number, content(model, version)
    engine = needed_engine(model, version, site)
    if engine is None:
        outcome = outcomes.digests.get(number, Waiting("Resolving", "finding out the digest of the source"))
        if meaning is not None:
            outcome = Waiting("TargetUnknown", "which GPU its server has is not known yet")
        return Build(number=number, engine=None, content=None, outcome=outcome)
    reused = _reused(number, meaning, model.status.version(number))
    if reused is not None:
        return Build(number=number, engine=engine, content=meaning, outcome=reused)
    entry = store.engines.get(engine.name)
    if entry is not None and entry.key == engine.key:
        done = Ready("Built", f"engine {engine.name} is in the store")
        return Build(number=number, engine=engine, content=meaning, outcome=done, signature=entry.signature)
    return Build(number=number, engine=engine, content=meaning, outcome=_so_far(engine, store, outcomes))


def _so_far(engine: NeededEngine, store: Snapshot, outcomes: Outcomes) -> Outcome:
    """Return how far an engine is that isn't in the store: the first of its lineage that isn't tells."""
    missing = next((each for each in engine.lineage if each.name not in store.engines), engine)
    outcome = outcomes.engines.get(
        missing.name, Waiting("Building", f"engine {missing.name} is being created")
    )
    if isinstance(outcome, Ready):  # the object says so, the store doesn't yet: our look at it is older
        return Waiting("Building", f"engine {missing.name} is about to appear in the store", after=2.0)
    return outcome


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
    """Return the check of an engine, as long as what it was held against didn't change.

    A version that failed is tried again when the serving changes; one that passed is trusted then.
    """
    entry = model.status.version(number)
    check = entry.check(engine) if entry is not None else None
    return check if check is not None and _holds(model, check) else None


def _holds(model: InferenceModel, check: CheckStatus) -> bool:
    if check.minimum_cosine != model.spec.check.minimum_cosine:
        return False
    same = judged_under(model)
    if check.config is None or check.config == same:
        return True
    passed = check.reason == Reason.SUCCEEDED.value
    return passed and check.config.split("-")[0] == same.split("-")[0]


def is_passed(model: InferenceModel, number: int, engine: str) -> bool:
    """Tell whether a version's answers were found right."""
    check = check_of(model, number, engine)
    return check is not None and check.reason == Reason.SUCCEEDED.value


def failed_check(model: InferenceModel, number: int, engine: str) -> Stalled | None:
    """Return why a version is left out: its answers were found wrong, or pods can't load it.

    One of its engines that failed on any server takes the version back on all of them.
    """
    entry = model.status.version(number)
    if entry is None:
        return None
    for check in entry.checks:
        same_version = check.engine == engine or {check.engine, engine} <= {*entry.engines}
        if same_version and check.reason != Reason.SUCCEEDED.value and _holds(model, check):
            return Stalled(check.reason, check.message or "the answers differ from those of the source")
    return None
