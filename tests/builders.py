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

    def _with_part(self, part: str, **fields: Any) -> Self:
        """Set fields of an object in the spec; its others stay."""
        return self.with_spec(**{part: {**self._spec.get(part, {}), **fields}})

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
        self,
        number: int,
        uri: str,
        *,
        sha256: str | None = None,
        secret: str | None = None,
        max_batch_size: int | None = None,
        build: Object | None = None,
    ) -> Self:
        """Add a version, or put another in the place of the one with this number."""
        version: Object = {"number": number, "source": {"uri": uri}}
        if sha256 is not None:
            version["source"]["sha256"] = sha256
        if secret is not None:
            version["source"]["secretName"] = secret
        asked = {**(build or {}), **_given(maxBatchSize=max_batch_size)}
        if asked:
            version["build"] = asked
        others = [each for each in self._spec.get("versions", []) if each["number"] != number]
        return self.with_spec(versions=[*others, version])

    def with_servers(self, *servers: str) -> Self:
        """Name the servers that serve it."""
        return self.with_spec(servers=list(servers))

    def named_in_triton(self, name: str) -> Self:
        """Give it another name in Triton than in Kubernetes."""
        return self.with_spec(modelName=name)

    def with_serving(self, **fields: Any) -> Self:
        """Set fields of serving by their names in YAML; its others stay."""
        return self._with_part("serving", **fields)

    def with_warmup(self) -> Self:
        """Let Triton warm it up."""
        return self.with_serving(warmup=True)

    def with_labels(self, **labels: list[str]) -> Self:
        """Name the classes of outputs: `with_labels(scores=["cat", "dog"])`."""
        return self.with_serving(labels=labels)

    def with_minimum_cosine(self, cosine: str) -> Self:
        """Set how like the source's own its answers must be."""
        return self._with_part("check", minimumCosine=cosine)

    def with_samples(self, uri: str, *, sha256: str | None = None, secret: str | None = None) -> Self:
        """Check it with inputs of the user's own."""
        given = _given(sha256=sha256, secretName=secret)
        return self._with_part("check", samples={"uri": uri, **given})

    def suspended(self, *, suspended: bool = True) -> Self:
        """Leave it as it is, or take it up again."""
        return self.with_spec(suspend=suspended)


class ServerBuilder(Builder):
    """A TritonServer."""

    kind = "TritonServer"

    def with_replicas(self, replicas: int) -> Self:
        """Set the number of pods."""
        return self.with_spec(replicas=replicas)

    def on_repository(self, name: str) -> Self:
        """Name the repository that its pods read."""
        return self.with_spec(repository=name)

    def with_loads(self, *, at_once: int | None = None, timeout_seconds: int | None = None) -> Self:
        """Set on how many pods at once a model is loaded, and how long that may take."""
        return self._with_part("loads", **_given(maxConcurrent=at_once, timeoutSeconds=timeout_seconds))

    def with_update(
        self, *, max_surge: int | str | None = None, max_unavailable: int | str | None = None
    ) -> Self:
        """Set how its pods are replaced."""
        return self._with_part("update", **_given(maxSurge=max_surge, maxUnavailable=max_unavailable))

    def with_disruption(self, max_unavailable: int | str) -> Self:
        """Set how many pods drains may take at once."""
        return self._with_part("disruption", maxUnavailable=max_unavailable)

    def with_shutdown(
        self, *, leave_seconds: int | None = None, exit_timeout_seconds: int | None = None
    ) -> Self:
        """Set how long its pods take to end."""
        given = _given(leaveSeconds=leave_seconds, exitTimeoutSeconds=exit_timeout_seconds)
        return self._with_part("shutdown", **given)


class RepositoryBuilder(Builder):
    """A ModelRepository."""

    kind = "ModelRepository"

    def on_claim(self, name: str) -> Self:
        """Use an existing claim instead of one that the operator makes."""
        spec = {key: value for key, value in self._spec.items() if key != "storage"}
        return type(self)(self.name, {**spec, "claimName": name})

    def with_access(self, *hosts: str, secrets: tuple[str, ...] = ()) -> Self:
        """Let sources come from these hosts, with these Secrets."""
        return self.with_spec(allowedHosts=list(hosts), allowedSecrets=list(secrets))

    def with_retention(self, duration: str) -> Self:
        """Keep unused engines for so long (Go's duration form)."""
        return self.with_spec(engineRetention=duration)


def _given(**fields: Any) -> Object:
    return {name: value for name, value in fields.items() if value is not None}


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
