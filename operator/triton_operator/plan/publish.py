"""What a server's tree must hold: which versions of which models, and under which configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from engine_builder.contract import ModelTree, StoreManifest, TreeManifest
from triton_operator.plan import model_config, versions
from triton_operator.plan.converge import DesiredModel
from triton_operator.plan.outcome import Outcome, Stalled
from triton_operator.plan.trial import name_of
from triton_operator.plan.versions import Build
from triton_operator.resources.inference_model import InferenceModel
from triton_operator.resources.triton_server import TritonServer


@dataclasses.dataclass(frozen=True)
class Trial:
    """A model's new version as a candidate: under a name of its own, on one pod."""

    name: str
    number: int
    engine: str
    config: model_config.CandidateConfig

    def tree(self) -> ModelTree:
        """Return what the keeper writes: no version is selected, so no pod loads it at its start."""
        return ModelTree(
            name=self.name, config=self.config.tree_text, versions={str(self.number): self.engine}
        )

    def desired(self) -> DesiredModel:
        """Return what the pod must serve that tries it."""
        return DesiredModel(
            config=self.config.load_text,
            fingerprint=self.config.fingerprint,
            versions=frozenset({self.number}),
            trial=True,
        )


@dataclasses.dataclass(frozen=True)
class Published:
    """One model in a tree, in the two forms that are needed: for the keeper and for the pods."""

    name: str
    engines: Mapping[int, str]
    config: model_config.ModelConfig
    trial: Trial | None = None

    def trees(self) -> tuple[ModelTree, ...]:
        """Return what the keeper writes."""
        numbers = {str(number): engine for number, engine in sorted(self.engines.items())}
        own = ModelTree(name=self.name, config=self.config.text, versions=numbers, files=self.config.files)
        return (own, self.trial.tree()) if self.trial is not None else (own,)

    def desired(self) -> DesiredModel:
        """Return what every pod must serve."""
        return DesiredModel(
            config=self.config.text,
            fingerprint=self.config.fingerprint,
            versions=frozenset(self.engines),
        )


@dataclasses.dataclass(frozen=True)
class Seen:
    """What a server's tree and pods have of a model, as number → engine and as numbers.

    `on_trial` is what the tree has as candidate. `confirmed` answer on every pod that can be asked,
    and None says that there is no pod; `loaded` are on any pod. `carried` are served by pods of
    another release, while no pod reads this tree yet.
    """

    in_tree: Mapping[int, str]
    on_trial: Mapping[int, str] = dataclasses.field(default_factory=dict)
    confirmed: frozenset[int] | None = frozenset()
    loaded: frozenset[int] = frozenset()
    carried: frozenset[int] = frozenset()


@dataclasses.dataclass(frozen=True)
class Placement:
    """The versions (number → engine) that a tree must hold of a model, and the one on trial."""

    engines: Mapping[int, str]
    trial: tuple[int, str] | None = None


def place(model: InferenceModel, found: Iterable[Build], seen: Seen) -> Placement:
    """Return what a tree must hold of a model.

    A new version is tried as candidate first, one at a time; where nothing of the model serves there
    is nobody to protect, and the lowest goes in at once. In a new release's tree, which no pod reads
    that could try it, so does all that pods of the former release serve.

    Never a gap: what the tree holds and the spec no longer lists stays until all that the
    spec lists is confirmed on every pod. Versions that failed leave at once, and so
    does what a former model of the same name has left. Its numbers can mean something else
    only when no pod has them `loaded` any more: Triton doesn't notice that a link has changed.
    """
    found = tuple(found)
    current = versions.own(model, found, seen.in_tree)
    candidates = {*current.items(), *((b.number, str(b.engine.name)) for b in found if b.engine)}
    failed = {number for number, engine in candidates if versions.failed_check(model, number, engine)}
    good = {b.number: str(b.engine.name) for b in found if b.engine and b.is_ready and b.number not in failed}
    good = {n: e for n, e in good.items() if n in current or n not in seen.loaded | seen.in_tree.keys()}
    trusted = {
        n: e for n, e in good.items() if n in current or n in seen.carried or versions.is_passed(model, n, e)
    }
    if good and not trusted and not current.keys() - failed:
        trusted = {min(good): good[min(good)]}
    trial = _trial({n: e for n, e in good.items() if n not in trusted}, seen)
    confirmed = trusted.keys() if seen.confirmed is None else seen.confirmed & trusted.keys()
    if {b.number for b in found} <= confirmed:
        return Placement(trusted, trial)
    kept = {n: e for n, e in current.items() if n not in trusted and n not in failed}
    return Placement(kept | trusted, trial)


def _trial(untried: Mapping[int, str], seen: Seen) -> tuple[int, str] | None:
    """Return the lowest version to try, unless its number is on trial with another engine already."""
    for number, engine in sorted(untried.items()):
        return (number, engine) if seen.on_trial.get(number, engine) == engine else None
    return None


def publish(
    model: InferenceModel, placement: Placement, store: Mapping[str, StoreManifest]
) -> Published | None:
    """Return a model as it stands in a tree, or None when nothing of it does."""
    if not placement.engines:
        return None
    newest = store[placement.engines[max(placement.engines)]]
    config = model_config.render(
        name=model.triton_name,
        spec=model.spec,
        signature=newest.signature,
        versions=placement.engines,
        sample_shapes=newest.sample_shapes,
    )
    return Published(
        name=model.triton_name,
        engines=placement.engines,
        config=config,
        trial=_published_trial(model, placement.trial, store),
    )


def _published_trial(
    model: InferenceModel, trial: tuple[int, str] | None, store: Mapping[str, StoreManifest]
) -> Trial | None:
    if trial is None:
        return None
    number, engine = trial
    name = name_of(model.triton_name)
    config = model_config.candidate(
        name=name, spec=model.spec, signature=store[engine].signature, version=number
    )
    return Trial(name=name, number=number, engine=engine, config=config)


def manifest(models: Iterable[Published], *, kept: Iterable[str]) -> TreeManifest:
    """Return what the keeper must make the tree equal to; `kept` models are left as they lie."""
    trees = (tree for model in models for tree in model.trees())
    return TreeManifest(models=tuple(sorted(trees, key=lambda tree: tree.name)), kept=tuple(sorted(kept)))


def refusal(model: InferenceModel, server: TritonServer, rivals: Iterable[InferenceModel]) -> Outcome | None:
    """Return why a server does not serve a model, or None when it does.

    `rivals` are all models that name the server; of two with one Triton name the older serves.
    """
    if model.spec.backend not in server.spec.allowed_backends:
        allowed = ", ".join(backend.value for backend in server.spec.allowed_backends)
        message = (
            f"TritonServer {server.name} allows {allowed or 'no backend'}, not {model.spec.backend.value}; "
            f"its spec.allowedBackends can allow it"
        )
        return Stalled("BackendNotAllowed", message)
    if model.spec.backend in versions.COMPILED and server.spec.gpu is None:
        message = (
            f"TritonServer {server.name} has no GPU, which {model.spec.backend.value} needs: name a server "
            f"with spec.gpu in spec.servers, or describe its GPU there"
        )
        return Stalled("NeedsGpu", message)
    older = [r for r in rivals if r.triton_name == model.triton_name and seniority(r) < seniority(model)]
    if older:
        first = min(older, key=seniority)
        message = (
            f"InferenceModel {first.name} already serves the name {model.triton_name!r} on TritonServer "
            f"{server.name}: delete one of the two, or give this one another spec.modelName"
        )
        return Stalled("ModelNameTaken", message)
    return None


def seniority(model: InferenceModel) -> tuple[str, str]:
    """Return the order of age: creation time, then UID."""
    created = model.metadata.creation_timestamp
    return (created.isoformat() if created else "", model.metadata.uid)
