"""A version of a model: source and build in the spec, progress in the status."""

import enum
from typing import Annotated

from pydantic import ConfigDict, Field

from triton_operator.resources.common import Model
from triton_operator.resources.scalars import SHA256_PATTERN, Sha256, Timestamp
from triton_operator.resources.schema import LIST_SET, Rule, immutable, rules

SOURCE_URI_PATTERN = r"^pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[^/].*$"
_NEW_NUMBER = "a version number always means the same content; add a new version number instead"


class Backend(enum.StrEnum):
    """Triton backend that serves a model."""

    ONNX_RUNTIME = "ONNXRuntime"


class VersionState(enum.StrEnum):
    """How far a version is on its way to the pods, and back."""

    RESOLVING = "Resolving"
    BUILDING = "Building"
    BUILT = "Built"
    CANDIDATE = "Candidate"
    PROMOTED = "Promoted"
    RETIRING = "Retiring"
    FAILED = "Failed"
    REMOVED = "Removed"


class Source(Model):
    """Where the model comes from."""

    uri: str = Field(
        min_length=1,
        max_length=1024,
        pattern=SOURCE_URI_PATTERN,
        description="The ONNX file, or a directory that holds exactly one .onnx file (or a model.onnx) "
        "with its "
        "external data: pvc://<claim>/<path>, a PersistentVolumeClaim of this namespace and a path "
        "inside it. Once applied it may change only if sha256 is set. Example: "
        "pvc://models/detector/1/model.onnx",
        json_schema_extra=rules(
            Rule(
                f"self.matches(r'{SOURCE_URI_PATTERN}')",
                "source.uri must be pvc://<claim>/<path>, a PersistentVolumeClaim of this namespace and a "
                "path inside it",
            ),
            Rule(
                "!self.contains('/../') && !self.endsWith('/..')",
                "source.uri must not contain '..': write the path from the top of the volume",
            ),
        ),
    )
    sha256: Sha256 | None = Field(
        default=None,
        description="SHA-256 of the ONNX file, 64 lower-case hex digits; with external data, the digest that "
        "`engine-builder digest` prints. Bytes with another digest are refused. Default: found out at the "
        "first look. It can be neither added, changed nor removed later.",
        json_schema_extra=rules(
            Rule(
                f"self.matches('{SHA256_PATTERN}')",
                "source.sha256 must be 64 lower-case hex digits, as `engine-builder digest` prints them",
            )
        ),
    )


class Build(Model):
    """How the engine of a version is made."""

    max_batch_size: int = Field(
        default=16,
        ge=1,
        le=65536,
        description="Largest batch that the engine must answer, in samples. Default: 16.",
    )


class Version(Model):
    """One version. What its number means never changes."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            immutable(
                "has(self.source.sha256) == has(oldSelf.source.sha256) && "
                "(!has(self.source.sha256) || self.source.sha256 == oldSelf.source.sha256)",
                f"source.sha256 of an existing version cannot be added, changed or removed: {_NEW_NUMBER}",
                field_path=".source.sha256",
            ),
            immutable(
                "has(self.source.sha256) || self.source.uri == oldSelf.source.uri",
                f"source.uri of an existing version without source.sha256 cannot change: {_NEW_NUMBER}",
                field_path=".source.uri",
            ),
            immutable(
                "has(self.build) == has(oldSelf.build) && (!has(self.build) || self.build == oldSelf.build)",
                f"build of an existing version cannot change: {_NEW_NUMBER}",
                field_path=".build",
            ),
        )
    )

    number: int = Field(
        ge=1,
        le=2**31 - 1,
        description="Number of the version in Triton. Requests that name no version go to the highest "
        "one. Example: 1",
    )
    source: Source = Field(
        description="The model's file. Its content cannot change: add a new number instead."
    )
    build: Build = Field(
        default_factory=Build,
        description="How the engine is made. It cannot change: add a new number instead. Default: "
        "maxBatchSize 16.",
    )


class CheckStatus(Model):
    """What the check of a version's answers found."""

    engine: str = Field(max_length=253, description="Engine that was checked.")
    minimum_cosine: str = Field(
        max_length=16, description="The limit that held then: check.minimumCosine of the spec."
    )
    config: str | None = Field(
        default=None,
        max_length=64,
        description="Digest of the spec.serving under which it was checked; after another one a version "
        "that failed is tried again.",
    )
    samples: str | None = Field(
        default=None,
        max_length=253,
        description="The samples of spec.check that it was checked with, by their name in the store; none: "
        "made-up inputs alone.",
    )
    reason: str = Field(
        max_length=128,
        description="Succeeded, WrongAnswers, LoadFailed (Triton refused it), LoadTimeout (it took longer "
        "than the TritonServer's loads.timeoutSeconds) or LoadCrashed (Triton ended while loading it).",
    )
    message: str | None = Field(
        default=None, max_length=2048, description="What was compared, and what differed."
    )
    cosine: str | None = Field(
        default=None,
        max_length=32,
        description="Lowest cosine that was found, as a decimal string. Example: 0.999998",
    )
    max_error: str | None = Field(
        default=None,
        max_length=32,
        description="Largest absolute difference that was found, as a decimal string. Example: 1.9e-06",
    )


class VersionStatus(Model):
    """How far one version is. It stays here as long as its engine is kept."""

    number: int = Field(ge=1, le=2**31 - 1, description="Number of the version.")
    state: VersionState = Field(
        description="Resolving (its digest is being found out), Building, Built, Candidate (loaded on one "
        "pod under another name, where its answers are checked), Promoted (requests reach it), "
        "Retiring (being unloaded), Failed, or Removed (no longer in the spec; its engine is still kept)."
    )
    uri: str | None = Field(default=None, max_length=1024, description="Where sha256 was found out from.")
    sha256: Sha256 | None = Field(default=None, description="SHA-256 of the source, once known.")
    content_digest: Sha256 | None = Field(
        default=None,
        description="Digest of source and build: what this number means, once it was built. Using the number "
        "for anything else is VersionReused.",
    )
    engines: Annotated[tuple[Annotated[str, Field(max_length=253)], ...], Field(max_length=16)] = Field(
        default=(),
        description="Engines that serve the version, one for each repository. Example: "
        "[onnxruntime-5f1c0a9e2b7d4c11]",
        json_schema_extra=LIST_SET,
    )
    pods: str | None = Field(
        default=None,
        max_length=32,
        description="Pods on which the version is loaded, of all that should have it. Example: 3/8",
    )
    served_since: Timestamp | None = Field(
        default=None,
        description="When every pod had loaded it for the first time. Example: 2026-07-01T12:00:00Z",
    )
    reason: str | None = Field(
        default=None,
        max_length=128,
        description="One word: why the version is in this state. Example: DigestMismatch",
    )
    message: str | None = Field(
        default=None, max_length=4096, description="What happened and what to do next, for people."
    )
    check: CheckStatus | None = Field(
        default=None, description="What the check of its answers found, once it ran."
    )
