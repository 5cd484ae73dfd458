"""Engine: what Triton can load, made from one source; one entry of a repository's store."""

from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field

from triton_operator.resources.common import Model, Resource, Status
from triton_operator.resources.scalars import DnsLabel, Sha256, Timestamp
from triton_operator.resources.schema import (
    LIST_ATOMIC,
    LIST_SET,
    Column,
    Kind,
    Rule,
    immutable,
    ready_columns,
    rules,
)
from triton_operator.resources.version import SOURCE_URI_PATTERN, Backend

_FIXED = "the operator writes Engines; to build something else change the InferenceModel"


def engine_name(backend: Backend, key: str) -> str:
    """Return the name of the Engine with this key: the backend and the key's first 16 hex digits."""
    return f"{backend.value.lower()}-{key[:16]}"


class EngineSource(Model):
    """The source, with the digest that its bytes must have."""

    uri: str = Field(
        min_length=1,
        max_length=1024,
        pattern=SOURCE_URI_PATTERN,
        description="Where the source lies now; the only field of an Engine that may change. "
        "Example: pvc://models/detector/1/model.onnx",
    )
    sha256: Sha256 = Field(
        description="SHA-256 that the source must have, 64 hex digits.",
        json_schema_extra=rules(
            immutable("self == oldSelf", f"source.sha256 of an Engine cannot change: {_FIXED}")
        ),
    )


class EngineSpec(Model):
    """What the engine is made from, and how."""

    key: Sha256 = Field(
        description="Digest of everything that decides the engine's bytes: source, build, backend, "
        "repository, and the version "
        "of the preparing algorithm. The Engine is named after its first 16 digits.",
        json_schema_extra=rules(immutable("self == oldSelf", f"key of an Engine cannot change: {_FIXED}")),
    )
    backend: Backend = Field(
        description="Triton backend that loads the engine. Values: ONNXRuntime.",
        json_schema_extra=rules(
            immutable("self == oldSelf", f"backend of an Engine cannot change: {_FIXED}")
        ),
    )
    repository: DnsLabel = Field(
        description="ModelRepository of this namespace in whose store the engine lies.",
        json_schema_extra=rules(
            immutable("self == oldSelf", f"repository of an Engine cannot change: {_FIXED}")
        ),
    )
    source: EngineSource = Field(description="The model's file.")
    prepare_version: int = Field(
        ge=1,
        le=2**31 - 1,
        description="Version of the algorithm that prepares sources.",
        json_schema_extra=rules(
            immutable("self == oldSelf", f"prepareVersion of an Engine cannot change: {_FIXED}")
        ),
    )


class TensorStatus(Model):
    """An input or output."""

    name: str = Field(max_length=1024, description="Name of the tensor. Example: images")
    datatype: str = Field(max_length=32, description="Data type, as Triton calls it. Example: FP32")
    shape: Annotated[tuple[Annotated[int, Field(ge=-1)], ...], Field(max_length=32)] = Field(
        default=(),
        description="Shape with the batch; -1 where it may differ. Example: [-1, 3, 640, 640]",
        json_schema_extra=LIST_ATOMIC,
    )


class SignatureStatus(Model):
    """Inputs and outputs of a model, in the model's order."""

    inputs: Annotated[tuple[TensorStatus, ...], Field(max_length=1024)] = Field(
        default=(), description="What a request sends.", json_schema_extra=LIST_ATOMIC
    )
    outputs: Annotated[tuple[TensorStatus, ...], Field(max_length=1024)] = Field(
        default=(), description="What the answer holds.", json_schema_extra=LIST_ATOMIC
    )


class EngineStatus(Status):
    """What the operator found."""

    attempt: int | None = Field(
        default=None,
        ge=0,
        le=2**31 - 1,
        description="Number of the latest attempt; the Job's name ends in it.",
    )
    job: str | None = Field(
        default=None,
        max_length=253,
        description="Job of the latest attempt. Example: onnxruntime-5f1c0a9e2b7d4c11-1",
    )
    target: str | None = Field(
        default=None, max_length=128, description="Hardware that the engine is for. Example: cpu"
    )
    models: str | None = Field(
        default=None,
        max_length=1024,
        description="Model versions that use the engine, for printing. Example: text-detection/2",
    )
    used_by: Annotated[tuple[Annotated[str, Field(max_length=300)], ...], Field(max_length=1024)] = Field(
        default=(),
        description="Model versions that use the engine: InferenceModel/number. Example: [text-detection/2]",
        json_schema_extra=LIST_SET,
    )
    unused_since: Timestamp | None = Field(
        default=None,
        description="Since when no model uses it; the ModelRepository's engineRetention later it is removed. "
        "Example: 2026-07-01T12:00:00Z",
    )
    size_bytes: int | None = Field(
        default=None, ge=0, description="Size of the engine in the store, in bytes."
    )
    size: str | None = Field(default=None, max_length=32, description="The same for people. Example: 97.8Mi")
    digest: Sha256 | None = Field(default=None, description="SHA-256 of the store entry, 64 hex digits.")
    signature: SignatureStatus | None = Field(
        default=None, description="Inputs and outputs of the model. All versions of a model have the same."
    )


class Engine(Resource):
    """Engine is what Triton can load, made by one Job from one source, and kept in a ModelRepository's store.

    The operator writes Engines and removes them when no model has used them for the ModelRepository's
    engineRetention. Deleting one by hand never removes files that a server reads.
    """

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "self.metadata.name == self.spec.backend.lowerAscii() + '-' + self.spec.key.substring(0, 16)",
                f"metadata.name of an Engine is its backend and the first 16 digits of spec.key: {_FIXED}",
            )
        )
    )

    KIND: ClassVar[Kind] = Kind(
        kind="Engine",
        plural="engines",
        short_name="tengine",
        columns=(
            Column("Models", ".status.models"),
            Column("Target", ".status.target"),
            Column("Size", ".status.size"),
            *ready_columns(),
        ),
    )

    spec: EngineSpec = Field(description="What the engine is made from, and how; written by the operator.")
    status: EngineStatus = Field(
        default_factory=EngineStatus, description="What the operator found; written by it alone."
    )
