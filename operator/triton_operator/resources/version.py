"""A version of a model: source and build in the spec, progress in the status."""

import dataclasses
import enum
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from engine_builder.contract import CompileOptions, Portability, Precision
from triton_operator.resources.common import Model
from triton_operator.resources.profiles import Profile
from triton_operator.resources.scalars import SHA256_PATTERN, DnsSubdomain, Sha256, Timestamp
from triton_operator.resources.schema import (
    LIST_ATOMIC,
    LIST_SET,
    Rule,
    immutable,
    list_map,
    rules,
    unchanged,
)

_PLACES = (
    r"pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[^/]",
    r"(s3|gs|az)://[a-z0-9][-a-z0-9._]*/[^/]",
    r"https://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(:[0-9]{1,5})?/[^/]",
)
_ARTEFACT = (
    r"oci://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(:[0-9]{1,5})?/[a-z0-9][-a-z0-9._/]*"
    r"(:[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}|@sha256:[0-9a-f]{64})"
)
SOURCE_URI_PATTERN = rf"^(({'|'.join(_PLACES)}).*|{_ARTEFACT})$"
NPZ_URI_PATTERN = rf"^(({'|'.join(_PLACES)}).*\.npz(\?.*)?|{_ARTEFACT})$"
SOURCE_URI_FORMS = (
    "pvc://<claim>/<path>, s3://<bucket>/<key>, gs://<bucket>/<object>, az://<container>/<blob>, "
    "https://<host>/<path> or oci://<registry>/<repository>:<tag>"
)
NPZ_URI_FORMS = (
    "pvc://<claim>/<path>.npz, an .npz file behind s3://, gs://, az:// or https://, or an artefact "
    "oci://<registry>/<repository>:<tag> that holds one"
)
_NEW_NUMBER = "a version number always means the same content; add a new version number instead"


SECRET_FOR_REMOTE = Rule(
    "!has(self.secretName) || !self.uri.startsWith('pvc://')",
    "secretName is for sources from elsewhere: a claim needs none",
    field_path=".secretName",
)


class Backend(enum.StrEnum):
    """Triton backend that serves a model."""

    ONNX_RUNTIME = "ONNXRuntime"
    OPENVINO = "OpenVINO"
    TENSORRT = "TensorRT"


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

    model_config = ConfigDict(json_schema_extra=rules(SECRET_FOR_REMOTE))

    uri: str = Field(
        min_length=1,
        max_length=1024,
        pattern=SOURCE_URI_PATTERN,
        description="The ONNX file, or a directory that holds exactly one .onnx file (or a model.onnx) "
        "with its external data. pvc://<claim>/<path> is a PersistentVolumeClaim of this namespace and a "
        "path inside it. The others come from elsewhere, from hosts that spec.allowedHosts of the "
        "ModelRepository names: s3://<bucket>/<key> (also of compatible stores), gs://<bucket>/<object>, "
        "az://<container>/<blob>, https://<host>/<path> (a file), oci://<registry>/<repository>:<tag> (an "
        "artefact with the files as layers, or in a tar). Once applied it may change only if sha256 is "
        "set. Example: pvc://models/detector/1/model.onnx",
        json_schema_extra=rules(
            Rule(
                f"self.matches(r'{SOURCE_URI_PATTERN}')",
                f"source.uri must be {SOURCE_URI_FORMS}",
            ),
            Rule(
                "!self.contains('/../') && !self.endsWith('/..')",
                "source.uri must not contain '..': write the path from the top of the volume or bucket",
            ),
        ),
    )
    secret_name: DnsSubdomain | None = Field(
        default=None,
        description="Secret of this namespace with the keys to the source; spec.allowedSecrets of the "
        "ModelRepository must name it. Only the Jobs that read the source get it. It may change at any time. "
        "Default: none, the source is read by nobody in particular. Example: s3-read",
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


DEFAULT_BATCH = 16
_NO_MEANING: dict[str, Any] = {"max_batch_size": True, "calibration": {"secret_name"}}
"""What is said in another way, and with what the data is read."""
_UNSAID = {"workspacePercent": 70, "optimizationLevel": 3, "portability": "Exact"}
"""What options are that a spec leaves out."""


class Calibration(Model):
    """What INT8 is calibrated on: real inputs, or made-up ones."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "has(self.uri) != (has(self.generated) && self.generated)",
                "build.calibration needs either uri, an .npz file of real inputs, or generated: true, which "
                "calibrates on made-up numbers",
            ),
            Rule(
                "!has(self.sha256) || has(self.uri)",
                "build.calibration.sha256 is the digest of the file at uri: set uri as well",
                field_path=".sha256",
            ),
            Rule(
                "!has(self.secretName) || (has(self.uri) && !self.uri.startsWith('pvc://'))",
                "build.calibration.secretName is for files from elsewhere: made-up numbers and a claim need "
                "none",
                field_path=".secretName",
            ),
        )
    )

    uri: str | None = Field(
        default=None,
        min_length=1,
        max_length=1024,
        pattern=NPZ_URI_PATTERN,
        description="An .npz file of NumPy with one array for each input of the model, of inputs like those "
        "of real requests, 1024 samples at most: with a batch, any number of rows; without, one sample, or "
        "several under keys <number>/<input>. pvc://<claim>/<path>.npz is a PersistentVolumeClaim of this "
        "namespace and a path inside it; s3://, gs://, az://, https:// and oci:// are as in source.uri. "
        "Default: none. Example: pvc://models/detector/calibration.npz",
        json_schema_extra=rules(
            Rule(
                f"self.matches(r'{NPZ_URI_PATTERN}')",
                f"build.calibration.uri must be {NPZ_URI_FORMS}",
            ),
            Rule(
                "!self.contains('/../')",
                "build.calibration.uri must not contain '..': write the path from the top of the volume",
            ),
        ),
    )
    sha256: Sha256 | None = Field(
        default=None,
        description="SHA-256 of the file, 64 lower-case hex digits. A file with another digest is refused. "
        "Default: the file counts as it is at the first look.",
        json_schema_extra=rules(
            Rule(
                f"self.matches('{SHA256_PATTERN}')",
                "build.calibration.sha256 must be 64 lower-case hex digits, as `sha256sum` prints them",
            )
        ),
    )
    secret_name: DnsSubdomain | None = Field(
        default=None,
        description="Secret of this namespace with the keys to the file; spec.allowedSecrets of the "
        "ModelRepository must name it. It may change at any time. Default: none. Example: s3-read",
    )
    generated: bool = Field(
        default=False,
        description="Calibrate on made-up numbers instead of a file. Answers to real requests may be much "
        "worse than those that are compared then: good for trying out, not for production. Default: false.",
    )


class Build(Model):
    """How the engine of a version is made."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "!has(self.calibration) || (has(self.precision) && self.precision == 'INT8')",
                "build.calibration is for precision INT8 alone: leave it out, or set precision INT8",
                field_path=".calibration",
            ),
            Rule(
                "!has(self.keepIO) || self.keepIO || (has(self.precision) && self.precision == 'FP16')",
                "build.keepIO false is for precision FP16 alone: leave it out, or set precision FP16",
                field_path=".keepIO",
            ),
        )
    )

    max_batch_size: int | None = Field(
        default=None,
        ge=1,
        le=65536,
        description="Largest batch that the engine must answer, in samples. Default: that of profiles, 16 "
        "without them.",
    )
    precision: Precision = Field(
        default=Precision.FP32,
        description="Precision that the engine computes in. FP32 and TF32 leave the model as it is. FP16 and "
        "INT8 are put into it, and its answers are compared with the source's (check.minimumCosine). BF16 "
        "and FP8 must be in the model already. ONNXRuntime and OpenVINO serve FP32, FP16 and INT8. Values: "
        "FP32, TF32, FP16, BF16, INT8, FP8. Default: FP32.",
    )
    keep_io: bool = Field(
        default=True,
        alias="keepIO",
        description="FP16: whether inputs and outputs stay as they are, so that clients notice nothing. With "
        "false they become FP16, which is another signature. Default: true.",
    )
    calibration: Calibration | None = Field(
        default=None,
        description="INT8: the inputs from which the range of every number is learnt; needed unless the "
        "model brings Q/DQ itself. Default: none. Example: {uri: pvc://models/detector/calibration.npz}",
    )

    profiles: Annotated[tuple[Profile, ...], Field(min_length=1, max_length=8)] | None = Field(
        default=None,
        description="Shapes that a TensorRT engine takes; Triton uses the first profile. Default: one for "
        "batches of 1 to maxBatchSize, if nothing but the batch is free.",
        json_schema_extra=LIST_ATOMIC,
    )
    workspace_percent: int | None = Field(
        default=None,
        ge=1,
        le=100,
        description="Most memory that TensorRT may use while it compiles, in percent of the GPU's. "
        "Default: 70.",
    )
    optimization_level: int | None = Field(
        default=None,
        ge=0,
        le=5,
        description="How long TensorRT looks for a faster engine, 0 (shortest) to 5. Default: 3.",
    )
    portability: Portability | None = Field(
        default=None,
        description="GPUs on which the TensorRT engine runs: Exact (the target), SameComputeCapability or "
        "AmperePlus (8.0 and later); the last two are slower. Default: Exact.",
    )

    @property
    def largest_batch(self) -> int:
        """Return maxBatchSize; where it is left out, what the profiles or else the default say."""
        if self.max_batch_size is not None:
            return self.max_batch_size
        batches = (shape.max[0] for profile in self.profiles or () for shape in profile.inputs)
        return max(batches, default=DEFAULT_BATCH)

    @property
    def compile_options(self) -> CompileOptions:
        """Return how an engine is compiled; a prepared ONNX is the same for all of it."""
        usual = CompileOptions(max_batch_size=self.largest_batch)
        level, percent = self.optimization_level, self.workspace_percent
        return dataclasses.replace(
            usual,
            profiles=tuple(profile.to_contract() for profile in self.profiles or ()),
            workspace_percent=usual.workspace_percent if percent is None else percent,
            optimization_level=usual.optimization_level if level is None else level,
            portability=self.portability or usual.portability,
            precision=self.precision.value,
        )

    def to_meaning(self) -> dict[str, Any]:
        """Return what a version number stands for, besides its source.

        What has its default is left out, but for the batch size, so that a field that is new changes
        the meaning of no version that is there already.
        """
        said = self.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude=_NO_MEANING)
        own = {name: value for name, value in said.items() if _UNSAID.get(name) != value}
        return {"maxBatchSize": self.largest_batch} | own


def largest_batch(build: str) -> str:
    """Return `Build.largest_batch` as CEL; `build` is the expression of a build."""
    profiles = f"{build}.profiles.map(p, p.inputs.map(i, i.max[0]).max()).max()"
    return (
        f"(has({build}.maxBatchSize) ? {build}.maxBatchSize : "
        f"has({build}.profiles) ? {profiles} : {DEFAULT_BATCH})"
    )


def _same_build() -> str:
    """Return that a build is what it was; the largest batch may be written down or left out."""
    names = [str(field.alias) for field in Build.model_fields.values()]
    same = [unchanged(f"build.{name}") for name in names if name not in {"maxBatchSize", "calibration"}]
    batch = f"{largest_batch('self.build')} == {largest_batch('oldSelf.build')}"
    return " && ".join([*same, same_calibration("build.calibration", "uri"), batch])


def same_calibration(path: str, *names: str) -> str:
    """Return the CEL that a calibration is what it was: these fields of it, and what it is known by."""
    fields = " && ".join(unchanged(f"{path}.{name}") for name in (*names, "sha256", "generated"))
    return f"has(self.{path}) == has(oldSelf.{path}) && (!has(self.{path}) || ({fields}))"


class Version(Model):
    """One version. What its number means never changes."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            immutable(
                unchanged("source.sha256"),
                f"source.sha256 of an existing version cannot be added, changed or removed: {_NEW_NUMBER}",
                field_path=".source.sha256",
            ),
            immutable(
                "has(self.source.sha256) || self.source.uri == oldSelf.source.uri",
                f"source.uri of an existing version without source.sha256 cannot change: {_NEW_NUMBER}",
                field_path=".source.uri",
            ),
            immutable(
                f"has(self.build) == has(oldSelf.build) && (!has(self.build) || {_same_build()})",
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
        "maxBatchSize 16, or the profiles' largest batch; precision FP32.",
    )


class CheckStatus(Model):
    """What the check of a version's answers found."""

    engine: str = Field(
        max_length=253, description="Engine that was checked. Example: onnxruntime-5f1c0a9e2b7d4c11"
    )
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
    engines: Annotated[tuple[Annotated[str, Field(max_length=253)], ...], Field(max_length=64)] = Field(
        default=(),
        description="Engines that the version is served from: for each repository the prepared one, for each "
        "GPU what is compiled from it. Example: [onnxruntime-5f1c0a9e2b7d4c11]",
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
    checks: Annotated[tuple[CheckStatus, ...], Field(max_length=64)] = Field(
        default=(),
        description="What the checks of its answers found, one for each engine that was checked.",
        json_schema_extra=list_map("engine"),
    )

    def check(self, engine: str) -> CheckStatus | None:
        """Return the latest check of an engine."""
        return next((check for check in self.checks if check.engine == engine), None)
