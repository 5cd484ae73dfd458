"""Engine: what Triton can load, made from one source; one entry of a repository's store."""

from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field

from engine_builder.contract import Precision, Target
from triton_operator.resources.common import Model, Resource, Status
from triton_operator.resources.scalars import COSINE_PATTERN, DnsLabel, DnsSubdomain, Sha256, Timestamp
from triton_operator.resources.schema import (
    LIST_ATOMIC,
    LIST_SET,
    Column,
    Kind,
    Rule,
    immutable,
    ready_columns,
    rules,
    unchanged,
)
from triton_operator.resources.version import (
    SOURCE_URI_PATTERN,
    Backend,
    Build,
    Calibration,
    same_calibration,
)

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
        description="Where the source lies now; it may change, and secretName with it. "
        "Example: pvc://models/detector/1/model.onnx",
    )
    secret_name: DnsSubdomain | None = Field(
        default=None,
        description="Secret with which the source is read; it changes with the place. Example: s3-read",
    )
    sha256: Sha256 = Field(
        description="SHA-256 that the source must have, 64 hex digits.",
        json_schema_extra=rules(
            immutable("self == oldSelf", f"source.sha256 of an Engine cannot change: {_FIXED}")
        ),
    )


class EngineBuild(Model):
    """How the source's numbers are changed."""

    precision: Precision = Field(
        default=Precision.FP32,
        description="Precision that is put into the model. Default: FP32. Example: FP16",
    )
    keep_io: bool = Field(
        default=True,
        alias="keepIO",
        description="FP16: whether inputs and outputs stay as they are. Default: true.",
    )
    calibration: Calibration | None = Field(
        default=None, description="INT8: the inputs from which the range of every number is learnt."
    )


def _same_build() -> str:
    """Return that a build is what it was; where its calibration data lies may change, as a source may."""
    same = (unchanged("build.precision"), unchanged("build.keepIO"), same_calibration("build.calibration"))
    return f"has(self.build) == has(oldSelf.build) && (!has(self.build) || ({' && '.join(same)}))"


class EngineTarget(Model):
    """The hardware that a compiled engine is for."""

    product: str = Field(
        min_length=1, max_length=63, description="GPU product, MIG profile included. Example: NVIDIA-A10"
    )
    compute_capability: str = Field(
        pattern=r"^[0-9]{1,2}\.[0-9]$", max_length=4, description="Compute capability. Example: '8.6'"
    )
    memory_mib: int = Field(
        alias="memoryMiB",
        ge=1,
        le=2**31 - 1,
        description="Memory of one GPU or MIG profile, in MiB. Example: 23028",
    )


class EngineSpec(Model):
    """What the engine is made from, and how."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "has(self.source) != has(self.from) && has(self.source) == (self.backend == 'ONNXRuntime')",
                "an Engine is either prepared from a source (ONNXRuntime) or made from another Engine: "
                f"{_FIXED}",
            ),
            Rule(
                "(self.backend == 'TensorRT') == has(self.target) && "
                "has(self.target) == has(self.release) && has(self.target) == has(self.compile)",
                f"target, release and compile are what an Engine of TensorRT has, and no other: {_FIXED}",
            ),
            *(
                immutable(rule, f"{name} of an Engine cannot change: {_FIXED}", field_path=f".{name}")
                for name, rule in (
                    ("build", _same_build()),
                    *((name, unchanged(name)) for name in ("from", "target", "release", "compile")),
                )
            ),
        )
    )

    key: Sha256 = Field(
        description="Digest of everything that decides the engine's bytes: source, build, backend, "
        "repository, and the version "
        "of the preparing algorithm. The Engine is named after its first 16 digits.",
        json_schema_extra=rules(immutable("self == oldSelf", f"key of an Engine cannot change: {_FIXED}")),
    )
    backend: Backend = Field(
        description="Triton backend that loads the engine: ONNXRuntime (a prepared engine, which others "
        "are made from), OpenVINO or TensorRT.",
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
    source: EngineSource | None = Field(default=None, description="The model's file, of a prepared engine.")
    origin: DnsSubdomain | None = Field(
        default=None,
        alias="from",
        description="Engine of this namespace that it is made from, if not from a source. Example: "
        "onnxruntime-5f1c0a9e2b7d4c11",
    )
    target: EngineTarget | None = Field(default=None, description="GPU that a compiled engine is for.")
    release: str | None = Field(
        default=None,
        max_length=5,
        description="Triton release that a compiled engine is for; it fixes the version of TensorRT. "
        "Example: '26.07'",
    )
    compilation: Build | None = Field(
        default=None,
        alias="compile",
        description="How it is compiled; as in the InferenceModel.",
    )
    build: EngineBuild | None = Field(
        default=None,
        description="How the source's numbers are changed. Default: not at all.",
    )
    minimum_cosine: str | None = Field(
        default=None,
        max_length=16,
        pattern=COSINE_PATTERN,
        description="Lowest cosine between the answers before and after, where build changes numbers: the "
        "lowest check.minimumCosine of the models that use the engine. It may change. Example: '0.99'",
    )
    prepare_version: int = Field(
        default=0,
        ge=0,
        le=2**31 - 1,
        description="Version of the algorithm that prepares sources; 0 of an engine that is compiled.",
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


class BuildStatus(Model):
    """How long an attempt took."""

    job: str = Field(max_length=253, description="Job of the attempt. Example: tensorrt-5f1c0a9e2b7d4c11-1")
    seconds: int = Field(
        ge=0, description="From the Job's start to its end, with what it waited for a node. Example: 95"
    )
    held_seconds: int | None = Field(
        default=None,
        ge=0,
        description="How long the pod of a compile Job held its GPUs: from its binding to a node to the end "
        "of its container. Example: 80",
    )
    compiler_seconds: int | None = Field(
        default=None,
        ge=0,
        description="What the compiler itself took of that; the rest it held the GPUs for nothing. "
        "Example: 71",
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
    progress: int | None = Field(
        default=None,
        ge=0,
        le=100,
        description="How far the compiler is while it works, in percent of its own steps. Example: 42",
    )
    build: BuildStatus | None = Field(
        default=None, description="How long the latest attempt took that has ended."
    )
    target: str | None = Field(
        default=None, max_length=128, description="Hardware that the engine is for. Example: cpu"
    )
    precision: str | None = Field(
        default=None, max_length=8, description="Precision that it computes in. Example: FP16"
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
            Column("Precision", ".status.precision"),
            Column("Progress", ".status.progress", type="integer"),
            Column("Size", ".status.size"),
            *ready_columns(),
        ),
    )

    spec: EngineSpec = Field(description="What the engine is made from, and how; written by the operator.")
    status: EngineStatus = Field(
        default_factory=EngineStatus, description="What the operator found; written by it alone."
    )

    @property
    def target(self) -> Target | None:
        """Return the GPU that the engine is compiled for, or None of a prepared one."""
        found = self.spec.target
        return Target(found.product, found.compute_capability, found.memory_mib) if found else None

    @property
    def precision(self) -> Precision:
        """Return the precision that the engine computes in."""
        build = self.spec.compilation or self.spec.build
        return build.precision if build is not None else Precision.FP32
