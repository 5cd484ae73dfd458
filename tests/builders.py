"""Builders of the objects that users write: `a_model("resnet").with_version(1, "pvc://sources/1.onnx")`."""

from __future__ import annotations

import copy
from typing import Any, Self

API_VERSION = "triton-operator.io/v1alpha1"

Object = dict[str, Any]


class Builder:
    """An object under construction; every `with_` returns a new one."""

    kind = ""

    def __init__(self, name: str, spec: Object | None = None) -> None:
        self.name = name
        self._spec = spec or {}

    def with_spec(self, **fields: Any) -> Self:
        """Set fields of the spec by their names in YAML."""
        return type(self)(self.name, {**copy.deepcopy(self._spec), **fields})

    def build(self) -> Object:
        """Return the object as `kubectl apply` takes it."""
        metadata = {"name": self.name}
        return {
            "apiVersion": API_VERSION,
            "kind": self.kind,
            "metadata": metadata,
            "spec": copy.deepcopy(self._spec),
        }


class ModelBuilder(Builder):
    """An InferenceModel of backend ONNXRuntime."""

    kind = "InferenceModel"

    def with_version(
        self, number: int, uri: str, *, sha256: str | None = None, max_batch_size: int | None = None
    ) -> Self:
        """Add a version, or put another in the place of the one with this number."""
        version: Object = {"number": number, "source": {"uri": uri}}
        if sha256 is not None:
            version["source"]["sha256"] = sha256
        if max_batch_size is not None:
            version["build"] = {"maxBatchSize": max_batch_size}
        others = [each for each in self._spec.get("versions", []) if each["number"] != number]
        return self.with_spec(versions=[*others, version])

    def with_servers(self, *servers: str) -> Self:
        """Name the servers that serve it."""
        return self.with_spec(servers=list(servers))

    def named_in_triton(self, name: str) -> Self:
        """Give it another name in Triton than in Kubernetes."""
        return self.with_spec(modelName=name)


class ServerBuilder(Builder):
    """A TritonServer."""

    kind = "TritonServer"

    def with_replicas(self, replicas: int) -> Self:
        """Set the number of pods."""
        return self.with_spec(replicas=replicas)

    def on_repository(self, name: str) -> Self:
        """Name the repository that its pods read."""
        return self.with_spec(repository=name)


class RepositoryBuilder(Builder):
    """A ModelRepository."""

    kind = "ModelRepository"

    def on_claim(self, name: str) -> Self:
        """Use an existing claim instead of one that the operator makes."""
        spec = {key: value for key, value in self._spec.items() if key != "storage"}
        return type(self)(self.name, {**spec, "claimName": name})

    def with_retention(self, duration: str) -> Self:
        """Keep unused engines for so long (Go's duration form)."""
        return self.with_spec(engineRetention=duration)


def a_model(name: str = "model") -> ModelBuilder:
    """Return a model without versions, served by the server `default`."""
    return ModelBuilder(name, {"backend": "ONNXRuntime", "versions": []})


def a_server(name: str = "default") -> ServerBuilder:
    """Return a server of one pod on the repository `default`."""
    return ServerBuilder(name, {"image": "triton-operator/triton-cpu:24.10-py3"})


def a_repository(name: str = "default") -> RepositoryBuilder:
    """Return a repository on a claim that the operator makes."""
    return RepositoryBuilder(name, {"storage": {"size": "1Gi"}})


def a_claim(name: str, *, size: str = "1Gi", annotations: dict[str, str] | None = None) -> Object:
    """Return a claim that any number of pods may write to."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "annotations": annotations or {}},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": size}}},
    }
