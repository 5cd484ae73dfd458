"""What crosses the wire between operator, jobs and keeper.

Everything here is plain data with a JSON form, and needs the standard library only: the
operator imports this module, and jobs run it inside images that are not ours. Fields are
added, never renamed: an operator and a keeper of neighbouring versions must understand each
other while one of them is being upgraded. Unknown fields are ignored on reading.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import re
from collections.abc import Mapping

from engine_builder.codec import from_json, to_json

__all__ = ["from_json", "to_json"]

PREPARE_VERSION = 1
"""Version of the preparing algorithm. Raised by hand when the same source would give other
bytes; part of every engine's key, so raising it rebuilds the world."""

OPENVINO_VERSION = 1
"""The same for what OpenVINO's engines are converted with."""

TERMINATION_MESSAGE_BYTES = 3072
"""Most bytes of a report in a termination message (Kubernetes keeps 4,096)."""

CONFIG_PARAMETER = "triton-operator.io/config"
"""Parameter of config.pbtxt that carries the fingerprint of the configuration."""


class ExitCode(enum.IntEnum):
    """How a job ends; a Job's podFailurePolicy and the operator both read it."""

    OK = 0
    USAGE = 2
    USER_FAULT = 10
    PASSING_FAULT = 20


class Reason(str, enum.Enum):
    """Why a job or a check failed; shown as the reason of conditions and Events."""

    SUCCEEDED = "Succeeded"
    # a user's fault: trying the same again cannot help
    INVALID_MODEL = "InvalidModel"
    UNSUPPORTED_OPERATOR = "UnsupportedOperator"
    UNSAFE_SOURCE = "UnsafeSource"
    SOURCE_NOT_FOUND = "SourceNotFound"
    SOURCE_TOO_LARGE = "SourceTooLarge"
    DIGEST_MISMATCH = "DigestMismatch"
    ACCESS_DENIED = "AccessDenied"
    HOST_NOT_ALLOWED = "HostNotAllowed"
    INVALID_SAMPLES = "InvalidSamples"
    WRONG_ANSWERS = "WrongAnswers"
    UNSUPPORTED_PRECISION = "UnsupportedPrecision"
    ACCURACY_LOST = "AccuracyLost"
    INVALID_CALIBRATION = "InvalidCalibration"
    UNSUPPORTED_OPTION = "UnsupportedOption"
    UNSUPPORTED_TARGET = "UnsupportedTarget"
    PROFILE_MISSING = "ProfileMissing"
    INVALID_PROFILE = "InvalidProfile"
    BATCH_TOO_LARGE = "BatchTooLarge"
    BUILDER_OUT_OF_MEMORY = "BuilderOutOfMemory"
    BUILD_FAILED = "BuildFailed"
    COMPILER_CRASHED = "CompilerCrashed"
    # a passing fault, tried again
    SOURCE_UNREACHABLE = "SourceUnreachable"
    SOURCE_CHANGED = "SourceChanged"
    VOLUME_FULL = "VolumeFull"
    VOLUME_ERROR = "VolumeError"
    CANCELLED = "Cancelled"
    INTERNAL_ERROR = "InternalError"
    UNREACHABLE = "Unreachable"
    ENGINE_MISSING = "EngineMissing"
    OOM_KILLED = "OOMKilled"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    # the same, and an administrator must act: on the node, its labels or the image
    NO_GPU = "NoGPU"
    WRONG_GPU = "WrongGPU"
    DRIVER_TOO_OLD = "DriverTooOld"
    COMPILER_MISSING = "CompilerMissing"


USER_FAULTS = frozenset(
    {
        Reason.INVALID_MODEL,
        Reason.UNSUPPORTED_OPERATOR,
        Reason.UNSAFE_SOURCE,
        Reason.SOURCE_NOT_FOUND,
        Reason.SOURCE_TOO_LARGE,
        Reason.DIGEST_MISMATCH,
        Reason.ACCESS_DENIED,
        Reason.HOST_NOT_ALLOWED,
        Reason.INVALID_SAMPLES,
        Reason.WRONG_ANSWERS,
        Reason.UNSUPPORTED_PRECISION,
        Reason.ACCURACY_LOST,
        Reason.INVALID_CALIBRATION,
        Reason.UNSUPPORTED_OPTION,
        Reason.UNSUPPORTED_TARGET,
        Reason.PROFILE_MISSING,
        Reason.INVALID_PROFILE,
        Reason.BATCH_TOO_LARGE,
        Reason.BUILDER_OUT_OF_MEMORY,
        Reason.BUILD_FAILED,
        Reason.COMPILER_CRASHED,
    }
)


@dataclasses.dataclass(frozen=True)
class Tensor:
    """An input or output: Triton datatype (`FP32`, `INT64`, …) and shape, -1 where dynamic."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Signature:
    """Inputs and outputs of a model in the model's order; shapes include the batch."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def has_batch(self) -> bool:
        """Tell whether the first dimension of every input and output is a free batch dimension."""
        tensors = (*self.inputs, *self.outputs)
        return bool(tensors) and all(tensor.shape[:1] == (-1,) for tensor in tensors)


@dataclasses.dataclass(frozen=True)
class Target:
    """The hardware that an engine is compiled for.

    `product` is the label `nvidia.com/gpu.product` of GPU feature discovery (empty: any product of that
    compute capability), `compute_capability` reads `8.6`, `memory_mib` is 0 where nobody knows it.
    """

    product: str
    compute_capability: str
    memory_mib: int = 0

    def invalid(self) -> str:
        """Return what is wrong with it, or nothing."""
        if not re.fullmatch(r"[1-9][0-9]?\.[0-9]", self.compute_capability):
            return f"compute capability {self.compute_capability!r} is not like 8.6"
        return "" if self.memory_mib >= 0 else f"a target has no {self.memory_mib} MiB of memory"

    @property
    def capability(self) -> tuple[int, int]:
        """Return the compute capability as two numbers, which compare."""
        major, minor = self.compute_capability.split(".")
        return int(major), int(minor)

    def __str__(self) -> str:
        named = self.product or "a GPU"
        return f"{named} of compute capability {self.compute_capability}"


class Precision(str, enum.Enum):
    """Precision of the numbers that a model computes with.

    FP32 and TF32 leave the ONNX as it is (TF32 is the compiler's choice), FP16 and INT8 are put into
    it, BF16 and FP8 must be in it already.
    """

    FP32 = "FP32"
    TF32 = "TF32"
    FP16 = "FP16"
    BF16 = "BF16"
    INT8 = "INT8"
    FP8 = "FP8"


class Portability(str, enum.Enum):
    """On which GPUs an engine must run."""

    EXACT = "Exact"
    SAME_COMPUTE_CAPABILITY = "SameComputeCapability"
    AMPERE_PLUS = "AmperePlus"


@dataclasses.dataclass(frozen=True)
class ProfileInput:
    """The shapes of one input that an engine is made for: batch included, as in the model.

    For an input that itself holds a shape these are the values it may have.
    """

    name: str
    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class CompileOptions:
    """How an engine is compiled: `version.build` of an InferenceModel, but what prepare did.

    `max_batch_size` 0 says nothing about batches; `precision` is what the prepared model has.
    """

    max_batch_size: int = 0
    profiles: tuple[tuple[ProfileInput, ...], ...] = ()
    workspace_percent: int = 70
    optimization_level: int = 3
    portability: Portability = Portability.EXACT
    precision: str = "FP32"

    def invalid(self) -> str:
        """Return what is wrong with it, or nothing."""
        limits = (
            ("workspace_percent", self.workspace_percent, 1, 100),
            ("optimization_level", self.optimization_level, 0, 5),
            ("max_batch_size", self.max_batch_size, 0, 2**31 - 1),
        )
        wrong = (
            f"{name} is {is_} and not {low} to {high}"
            for name, is_, low, high in limits
            if not low <= is_ <= high
        )
        return next(wrong, "")


@dataclasses.dataclass(frozen=True)
class Report:
    """Outcome of a job, as it stands in the termination message.

    `seconds` names the steps of the job with their duration; `sha256` is the source's digest
    (see `engine_builder.source`), `size_bytes` what the store entry holds. `compiler_seconds` is
    what a compile job spent in TensorRT itself: the rest of its time it held the GPU for nothing.
    """

    reason: Reason
    message: str = ""
    engine: str = ""
    sha256: str = ""
    size_bytes: int = 0
    signature: Signature | None = None
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    compiler_seconds: float = 0.0

    @property
    def exit_code(self) -> ExitCode:
        """Return the process's exit code for this outcome."""
        if self.reason is Reason.SUCCEEDED:
            return ExitCode.OK
        return ExitCode.USER_FAULT if self.reason in USER_FAULTS else ExitCode.PASSING_FAULT

    def to_termination_message(self) -> str:
        """Return the JSON form, cut to what a termination message can hold."""
        for signature, longest in ((self.signature, 2000), (self.signature, 400), (None, 2000)):
            message = self.message if len(self.message) <= longest else self.message[:longest] + "…"
            text = to_json(dataclasses.replace(self, signature=signature, message=message))
            if len(text.encode()) <= TERMINATION_MESSAGE_BYTES:
                return text
        return to_json(
            Report(reason=self.reason, message=self.message[:400], engine=self.engine, sha256=self.sha256)
        )


@dataclasses.dataclass(frozen=True)
class StoreManifest:
    """`MANIFEST` of a store entry: files with their sha256, and what the entry is.

    An entry is an engine, or samples of the user's own for one.
    """

    engine: str
    key: str
    source_sha256: str
    prepare_version: int
    files: Mapping[str, str]
    size_bytes: int
    signature: Signature
    sample_shapes: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    """Input → shape in the first reference sample, batch included; empty where there is none."""
    prepared: str = ""
    """The entry that a compiled engine was made from; empty for all others."""
    tensorrt: str = ""
    """TensorRT that a plan was built with, and that alone runs it: four numbers, `10.9.0.34`."""
    target: Target | None = None
    """The hardware that a plan was built for."""


@dataclasses.dataclass(frozen=True)
class ModelTree:
    """A model in a server's tree: its config.pbtxt, its versions (number → engine), further files.

    `files` (name → text) lie beside config.pbtxt, which may name them.
    """

    name: str
    config: str
    versions: Mapping[str, str]
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class TreeManifest:
    """What one server's tree of one release must be.

    `kept` names models that are to go, and are left as they lie until every pod has unloaded
    them: Triton's index forgets a model whose directory is gone, and goes on serving it.
    """

    models: tuple[ModelTree, ...]
    kept: tuple[str, ...] = ()

    @property
    def revision(self) -> str:
        """Return 16 hex digits that name this content."""
        return hashlib.sha256(to_json(self).encode()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class TreeState:
    """A tree as the keeper finds it on the volume."""

    server: str
    release: str
    revision: str
    models: Mapping[str, Mapping[str, str]]
    """Model → version number → engine."""


@dataclasses.dataclass(frozen=True)
class Volume:
    """Space and abilities of the volume; bytes."""

    bytes_total: int
    bytes_free: int
    rename: bool
    links: bool
    fsync: bool


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """Everything on the volume, answered by `GET /v1/snapshot`."""

    volume: Volume
    engines: Mapping[str, StoreManifest]
    trees: tuple[TreeState, ...]
    staging: tuple[str, ...]
    progress: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Staging directory (the UID of a Job's pod) → percent, of those that tell how far they are."""


@dataclasses.dataclass(frozen=True)
class SweepRequest:
    """What may stay: `POST /v1/sweep` removes the rest, but never an engine that a tree names."""

    engines: tuple[str, ...]
    trees: tuple[str, ...]
    """`<server>/<release>`."""
    staging: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class SweepResult:
    """What a sweep removed."""

    engines: tuple[str, ...]
    trees: tuple[str, ...]
    staging: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class CheckRequest:
    """Ask the keeper to compare a loaded version's answers with the source's own.

    `address` is `host:port` of one pod's gRPC endpoint. `samples` names an entry of the store
    with the user's own samples, which are compared as well as the engine's.
    """

    address: str
    model: str
    version: str
    engine: str
    minimum_cosine: float
    timeout_seconds: float = 60.0
    samples: str = ""


@dataclasses.dataclass(frozen=True)
class CheckResult:
    """Figures of a check: the lowest cosine and the largest absolute error of all outputs.

    `reason` is `Succeeded`, `WrongAnswers` (the version's fault) or `Unreachable` (ask again).
    """

    reason: Reason
    message: str
    cosine: float = 0.0
    max_error: float = 0.0
    samples: int = 0


@dataclasses.dataclass(frozen=True)
class KeeperError:
    """Body of every answer that is not 2xx."""

    reason: str
    message: str
