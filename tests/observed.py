"""Builders of what the operator sees: objects as the API server returns them, Jobs, pods, volumes."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Mapping
from typing import Any

from tests.builders import Builder, ModelBuilder, RepositoryBuilder, ServerBuilder

from engine_builder.contract import (
    Report,
    Signature,
    Snapshot,
    StoreManifest,
    Tensor,
    TreeState,
    Volume,
    to_json,
)
from triton_operator.plan import names, versions
from triton_operator.resources.engine import Engine
from triton_operator.resources.inference_model import InferenceModel
from triton_operator.resources.model_repository import ModelRepository
from triton_operator.resources.triton_server import TritonServer

Object = dict[str, Any]

NAMESPACE = "vision"
REPOSITORY_UID = "repository-uid"
NOW = datetime.datetime(2026, 7, 1, 12, 0, 0, tzinfo=datetime.UTC)


def at(seconds: float) -> str:
    """Return the RFC 3339 time so many seconds after NOW."""
    return (NOW + datetime.timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def sha(text: str) -> str:
    """Return a digest that stands for some content."""
    return hashlib.sha256(text.encode()).hexdigest()


def stored(
    builder: Builder,
    *,
    uid: str = "",
    created: float = 0,
    generation: int = 1,
    status: Object | None = None,
    resource_version: str = "1",
) -> Object:
    """Return a user's object as the API server keeps it."""
    body = builder.build()
    body["metadata"] |= {
        "namespace": NAMESPACE,
        "uid": uid or f"{builder.name}-uid",
        "generation": generation,
        "resourceVersion": resource_version,
        "creationTimestamp": at(created),
    }
    return body | ({"status": status} if status is not None else {})


def model(builder: ModelBuilder, **more: Any) -> InferenceModel:
    """Return a stored InferenceModel, parsed."""
    return InferenceModel.parse(stored(builder, **more))


def server(builder: ServerBuilder, **more: Any) -> TritonServer:
    """Return a stored TritonServer, parsed."""
    return TritonServer.parse(stored(builder, **more))


def repository(builder: RepositoryBuilder, **more: Any) -> ModelRepository:
    """Return a stored ModelRepository, parsed."""
    return ModelRepository.parse(stored(builder, **more))


def a_tensor(name: str = "x", *shape: int, datatype: str = "FP32") -> Tensor:
    """Return an input or output."""
    return Tensor(name=name, datatype=datatype, shape=shape or (-1, 3))


def a_signature(*inputs: Tensor, outputs: tuple[Tensor, ...] = ()) -> Signature:
    """Return a signature; without tensors, one that can be batched."""
    return Signature(inputs=inputs or (a_tensor("x"),), outputs=outputs or (a_tensor("y", -1, 2),))


def engine_of(
    found: InferenceModel, number: int, *, repository_uid: str = REPOSITORY_UID
) -> versions.NeededEngine:
    """Return the engine that a version needs; its digest must be known."""
    version = found.spec.version(number)
    assert version is not None
    needed = versions.needed_engine(found, version, versions.Site(repository_uid))
    assert needed is not None
    return needed


def an_entry(engine: versions.NeededEngine, signature: Signature | None = None) -> StoreManifest:
    """Return the entry of a store that holds this engine."""
    return StoreManifest(
        engine=engine.name,
        key=engine.key,
        source_sha256=engine.sha256,
        prepare_version=1,
        files={"model.onnx": engine.sha256},
        size_bytes=1 << 20,
        signature=signature or a_signature(),
    )


def a_tree(
    models: Mapping[str, Mapping[int, str]], *, server: str = "default", release: str = "24.10"
) -> TreeState:
    """Return a tree as a keeper finds it."""
    named = {
        name: {str(number): engine for number, engine in versions.items()}
        for name, versions in models.items()
    }
    return TreeState(server=server, release=release, revision=sha(repr(models))[:16], models=named)


def a_snapshot(
    *entries: StoreManifest,
    trees: tuple[TreeState, ...] = (),
    staging: tuple[str, ...] = (),
    free: int = 1 << 30,
) -> Snapshot:
    """Return what lies on a volume."""
    return Snapshot(
        volume=Volume(bytes_total=1 << 34, bytes_free=free, rename=True, links=True, fsync=True),
        engines={entry.engine: entry for entry in entries},
        trees=trees,
        staging=staging,
    )


def an_engine(
    needed: versions.NeededEngine,
    *,
    uri: str = "pvc://sources/1.onnx",
    status: Object | None = None,
    resource_version: str = "1",
) -> Object:
    """Return a stored Engine."""
    return {
        "apiVersion": Engine.KIND.api_version,
        "kind": "Engine",
        "metadata": {
            "name": needed.name,
            "namespace": NAMESPACE,
            "uid": f"{needed.name}-uid",
            "generation": 1,
            "resourceVersion": resource_version,
            "labels": names.labels("engine"),
        },
        "spec": {
            "key": needed.key,
            "backend": "ONNXRuntime",
            "repository": "default",
            "source": {"uri": uri, "sha256": needed.sha256},
            "prepareVersion": 1,
        },
        "status": status or {},
    }


def a_job(
    attempt: int,
    *,
    end: str | None = None,
    ended: float = 0,
    generation: int = 1,
    reason: str = "BackoffLimitExceeded",
    deleting: bool = False,
) -> Object:
    """Return the Job of an attempt; `end` is `Complete` or `Failed`, at so many seconds after NOW."""
    labels = {names.ATTEMPT: str(attempt), names.GENERATION: str(generation)}
    metadata: Object = {
        "name": f"build-{attempt}",
        "namespace": NAMESPACE,
        "uid": f"job-{attempt}",
        "resourceVersion": "1",
        "creationTimestamp": at(ended - 10),
        "labels": labels,
    }
    if deleting:
        metadata["deletionTimestamp"] = at(ended)
    status: Object = {}
    if end is not None:
        condition = {"type": end, "status": "True", "reason": reason, "lastTransitionTime": at(ended)}
        status = {"conditions": [condition], "startTime": at(ended - 8)}
        if end == "Complete":
            status["completionTime"] = at(ended)
    return {"kind": "Job", "metadata": metadata, "status": status}


def a_pod(
    name: str = "pod-1", *, owner: str = "job-1", container: str = "engine-builder", **status: Any
) -> Object:
    """Return a pod; keywords are fields of its status."""
    return {
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "uid": f"{name}-uid",
            "resourceVersion": "1",
            "ownerReferences": [{"kind": "Job", "name": owner, "uid": owner}],
        },
        "spec": {"containers": [{"name": container}]},
        "status": status,
    }


def an_ended_pod(
    report: Report | None = None, *, owner: str = "job-1", code: int | None = None, message: str = ""
) -> Object:
    """Return the pod of a Job that has ended, with its report."""
    if report is not None:
        code, message = int(report.exit_code) if code is None else code, to_json(report)
    terminated = {"exitCode": code or 0, "message": message, "reason": "Error" if code else "Completed"}
    return a_pod(
        owner=owner,
        phase="Failed" if code else "Succeeded",
        containerStatuses=[{"name": "engine-builder", "state": {"terminated": terminated}}],
    )
