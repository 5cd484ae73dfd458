"""What a server's tree must hold: which versions of which models, and under which configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from engine_builder.contract import ModelTree, Signature, TreeManifest
from triton_operator.plan import model_config, versions
from triton_operator.plan.converge import DesiredModel
from triton_operator.plan.outcome import Outcome, Stalled
from triton_operator.plan.versions import Build
from triton_operator.resources.inference_model import InferenceModel
from triton_operator.resources.triton_server import TritonServer


@dataclasses.dataclass(frozen=True)
class Published:
    """One model in a tree, in the two forms that are needed: for the keeper and for the pods."""

    name: str
    engines: Mapping[int, str]
    config: model_config.ModelConfig

    def tree(self) -> ModelTree:
        """Return what the keeper writes."""
        numbers = {str(number): engine for number, engine in sorted(self.engines.items())}
        return ModelTree(name=self.name, config=self.config.text, versions=numbers)

    def desired(self) -> DesiredModel:
        """Return what every pod must serve."""
        return DesiredModel(
            config=self.config.text,
            fingerprint=self.config.fingerprint,
            versions=frozenset(self.engines),
        )


def engines_of(
    model: InferenceModel,
    found: Iterable[Build],
    *,
    in_tree: Mapping[int, str],
    confirmed: frozenset[int],
    loaded: frozenset[int],
) -> dict[int, str]:
    """Return the versions (number → engine) that a tree must hold of a model.

    Never a gap: what the tree holds and the spec no longer lists stays until all that the
    spec lists is confirmed on every pod. Versions with wrong answers leave at once, and so
    does what a former model of the same name has left. Its numbers can mean something else
    only when no pod has them `loaded` any more: Triton doesn't notice that a link has changed.
    """
    found = tuple(found)
    current = versions.own(model, found, in_tree)
    candidates = {*current.items(), *((b.number, str(b.engine.name)) for b in found if b.engine)}
    failed = {number for number, engine in candidates if versions.failed_check(model, number, engine)}
    good = {b.number: str(b.engine.name) for b in found if b.engine and b.is_ready and b.number not in failed}
    good = {n: e for n, e in good.items() if n in current or n not in loaded | in_tree.keys()}
    if {b.number for b in found} <= confirmed & good.keys():
        return good
    kept = {n: e for n, e in current.items() if n not in good and n not in failed}
    return kept | good


def publish(model: InferenceModel, engines: Mapping[int, str], signature: Signature) -> Published:
    """Return a model as it stands in a tree."""
    name = model.triton_name
    config = model_config.render(name=name, spec=model.spec, signature=signature, versions=engines)
    return Published(name=name, engines=engines, config=config)


def manifest(models: Iterable[Published], *, kept: Iterable[str]) -> TreeManifest:
    """Return what the keeper must make the tree equal to; `kept` models go when pods have unloaded them."""
    ordered = sorted(models, key=lambda model: model.name)
    return TreeManifest(models=tuple(model.tree() for model in ordered), kept=tuple(sorted(kept)))


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
