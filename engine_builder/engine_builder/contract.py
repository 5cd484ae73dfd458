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
from collections.abc import Mapping

from engine_builder.codec import from_json, to_json

__all__ = ["from_json", "to_json"]

PREPARE_VERSION = 1
"""Version of the preparing algorithm. Raised by hand when the same source would give other
bytes; part of every engine's key, so raising it rebuilds the world."""

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
    INVALID_SAMPLES = "InvalidSamples"
    WRONG_ANSWERS = "WrongAnswers"
    # a passing fault, tried again
    VOLUME_FULL = "VolumeFull"
    VOLUME_ERROR = "VolumeError"
    CANCELLED = "Cancelled"
    INTERNAL_ERROR = "InternalError"
    UNREACHABLE = "Unreachable"


USER_FAULTS = frozenset(
    {
        Reason.INVALID_MODEL,
        Reason.UNSUPPORTED_OPERATOR,
        Reason.UNSAFE_SOURCE,
        Reason.SOURCE_NOT_FOUND,
        Reason.SOURCE_TOO_LARGE,
        Reason.DIGEST_MISMATCH,
        Reason.INVALID_SAMPLES,
        Reason.WRONG_ANSWERS,
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
class Report:
    """Outcome of a job, as it stands in the termination message.

    `seconds` names the steps of the job with their duration; `sha256` is the source's digest
    (see `engine_builder.source`), `size_bytes` what the store entry holds.
    """

    reason: Reason
    message: str = ""
    engine: str = ""
    sha256: str = ""
    size_bytes: int = 0
    signature: Signature | None = None
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)

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
