"""Engine objects: what the operator writes when a model needs one."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Any

from engine_builder.contract import PREPARE_VERSION
from triton_operator.plan import names
from triton_operator.plan.versions import NeededEngine
from triton_operator.resources.engine import Engine
from triton_operator.resources.inference_model import InferenceModel
from triton_operator.resources.version import Version


def manifest(
    *, engine: NeededEngine, namespace: str, repository: str, model: InferenceModel, version: Version
) -> dict[str, Any]:
    """Return an Engine. It has no owner: it is a cache, and outlives the models that use it."""
    return {
        "apiVersion": Engine.KIND.api_version,
        "kind": Engine.KIND.kind,
        "metadata": {"name": engine.name, "namespace": namespace, "labels": names.labels("engine")},
        "spec": {
            "key": engine.key,
            "backend": model.spec.backend.value,
            "repository": repository,
            "source": {"uri": version.source.uri, "sha256": engine.sha256},
            "prepareVersion": PREPARE_VERSION,
        },
    }


def moved(engine: Engine, sources: AbstractSet[str]) -> dict[str, Any] | None:
    """Return the Engine with the place where its source lies now, or None when it need not change.

    The place isn't part of the key, so several models may name several; any of them will do.
    """
    if not sources or engine.spec.source.uri in sources:
        return None
    body = engine.to_manifest()
    body.pop("status", None)
    spec = body["spec"] | {"source": {"uri": min(sources), "sha256": engine.spec.source.sha256}}
    metadata = {
        "name": engine.name,
        "namespace": engine.namespace,
        "uid": engine.metadata.uid,
        "labels": names.labels("engine"),
    }
    return {"apiVersion": body["apiVersion"], "kind": body["kind"], "metadata": metadata, "spec": spec}
