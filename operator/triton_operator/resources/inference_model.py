"""InferenceModel: a model, its versions, and how Triton serves them."""

from collections.abc import Collection
from typing import Annotated, Any, ClassVar, Self

from pydantic import ConfigDict, Field

from triton_operator.resources.common import Model, Resource, Status
from triton_operator.resources.scalars import DnsLabel, Timestamp
from triton_operator.resources.schema import (
    LIST_ATOMIC,
    LIST_SET,
    Column,
    Kind,
    Rule,
    immutable,
    list_map,
    ready_columns,
    rules,
    unchanged,
)
from triton_operator.resources.serving import Check, Samples, Serving
from triton_operator.resources.version import (
    Backend,
    CheckStatus,
    Version,
    VersionState,
    VersionStatus,
    largest_batch,
)

__all__ = [
    "Backend",
    "Check",
    "CheckStatus",
    "HistoryEntry",
    "InferenceModel",
    "InferenceModelSpec",
    "InferenceModelStatus",
    "Samples",
    "Serving",
    "Version",
    "VersionState",
    "VersionStatus",
]

MODEL_NAME_PATTERN = r"^[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}$"
CANDIDATE_SUFFIX = ".candidate"
"""A version on trial is loaded under the model's name with this suffix."""

_NEW_MODEL = "create another InferenceModel and delete this one"


_COMPILED_ALONE = ("profiles", "workspacePercent", "optimizationLevel", "portability")
"""Options of builds that only TensorRT has."""


class InferenceModelSpec(Model):
    """What to serve, where, and how."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "self.backend == 'TensorRT' || "
                "self.versions.all(v, v.build.precision in ['FP32', 'FP16', 'INT8'])",
                "backends ONNXRuntime and OpenVINO serve build.precision FP32, FP16 and INT8: choose one of "
                "them",
                field_path=".versions",
            ),
            immutable(
                unchanged("modelName"),
                f"modelName cannot be added, changed or removed: {_NEW_MODEL}",
                field_path=".modelName",
            ),
            Rule(
                "!has(self.serving) || !has(self.serving.maxBatchSize) || "
                f"self.versions.all(v, self.serving.maxBatchSize <= {largest_batch('v.build')})",
                "serving.maxBatchSize is above build.maxBatchSize of a version (default 16): lower it, or "
                "add a version that is built for larger batches",
                field_path=".serving",
            ),
            Rule(
                "!has(self.serving) || !has(self.serving.dynamicBatching) || "
                "!has(self.serving.dynamicBatching.preferredBatchSizes) || "
                "self.serving.dynamicBatching.preferredBatchSizes.all(s, "
                f"self.versions.all(v, s <= {largest_batch('v.build')}))",
                "serving.dynamicBatching.preferredBatchSizes has a size above build.maxBatchSize of a "
                "version (default 16): leave it out, or add a version that is built for larger batches",
                field_path=".serving",
            ),
            *(
                Rule(
                    f"self.backend == 'TensorRT' || !self.versions.exists(v, has(v.build.{option}))",
                    f"build.{option} is for backend TensorRT: remove it",
                    field_path=".versions",
                )
                for option in _COMPILED_ALONE
            ),
        )
    )

    servers: Annotated[tuple[DnsLabel, ...], Field(min_length=1, max_length=16)] = Field(
        default=("default",),
        description="TritonServers of this namespace that serve the model. One that does not exist yet is "
        "waited for. "
        "Default: [default]. Example: [a10, l4]",
        json_schema_extra=LIST_SET,
    )
    model_name: str | None = Field(
        default=None,
        min_length=1,
        max_length=128,
        pattern=MODEL_NAME_PATTERN,
        description="Name of the model in Triton, by which clients call it. Letters, digits, '_', '-' and "
        "'.', at most 128. "
        "Default: metadata.name. It can be neither added, changed nor removed later. Example: text_detection",
        json_schema_extra=rules(
            Rule(
                f"self.matches('{MODEL_NAME_PATTERN}') && !self.contains('..')",
                "modelName may hold letters, digits, '_', '-' and '.', starts with a letter, digit or '_', "
                "has no '..' and at most 128 characters",
            ),
            Rule(
                f"!self.endsWith('{CANDIDATE_SUFFIX}')",
                f"modelName must not end in '{CANDIDATE_SUFFIX}': versions on trial are loaded under such "
                "names",
            ),
        ),
    )
    backend: Backend = Field(
        description="Triton backend that serves the model. It cannot change. Values: ONNXRuntime, "
        "OpenVINO, TensorRT.",
        json_schema_extra=rules(
            immutable("self == oldSelf", f"backend cannot change: {_NEW_MODEL}"),
        ),
    )
    versions: Annotated[tuple[Version, ...], Field(min_length=1, max_length=16)] = Field(
        description="Versions to serve, 1 to 16, told apart by number. A version that is added is built, "
        "checked, then "
        "loaded beside the others; one that is removed is unloaded when the others serve.",
        json_schema_extra=list_map("number"),
    )
    serving: Serving = Field(
        default_factory=Serving,
        description="How Triton serves all versions: batching, instances, parameters, warm-up, labels. "
        "Changing it builds nothing.",
    )
    check: Check = Field(
        default_factory=Check, description="When the answers of a new version count as right."
    )
    suspend: bool = Field(
        default=False,
        description="Leaves the model as it is: what is served stays served, also by pods that start, and "
        "nothing is built, checked, loaded or unloaded until this is false again. Default: false.",
    )

    def max_batch_size(self, numbers: Collection[int]) -> int:
        """Return the batch size that Triton is told: the one asked for, else the smallest build's.

        Only versions of these numbers count: one that is not served yet must not reload the others.
        """
        if self.serving.max_batch_size is not None:
            return self.serving.max_batch_size
        served = [version for version in self.versions if version.number in numbers]
        return min(version.build.largest_batch for version in served or self.versions)

    def version(self, number: int) -> Version | None:
        """Return the version of a number, if the spec lists it."""
        return next((version for version in self.versions if version.number == number), None)


class HistoryEntry(Model):
    """Something that happened to the model; an Event said the same."""

    time: Timestamp = Field(description="When it happened. Example: 2026-07-01T12:00:00Z")
    version: int | None = Field(
        default=None,
        ge=1,
        le=2**31 - 1,
        description="Number of the version it happened to; none: the whole model.",
    )
    reason: str = Field(max_length=128, description="One word: what happened. Example: Promoted")
    message: str = Field(max_length=1024, description="The same for people, with what to do next.")


class InferenceModelStatus(Status):
    """What the operator found."""

    versions: Annotated[tuple[VersionStatus, ...], Field(max_length=1024)] = Field(
        default=(),
        description="How far each version is, those included that were removed but whose engines are "
        "still kept.",
        json_schema_extra=list_map("number"),
    )
    servers: str | None = Field(
        default=None, max_length=1100, description="Servers of the spec, for printing. Example: a10,l4"
    )
    versions_wanted: str | None = Field(
        default=None, max_length=256, description="Version numbers of the spec, for printing. Example: 1,2"
    )
    versions_serving: str | None = Field(
        default=None,
        max_length=256,
        description="Version numbers that every pod serves, for printing. Example: 1,2",
    )
    history: Annotated[tuple[HistoryEntry, ...], Field(max_length=64)] = Field(
        default=(),
        description="What happened to the model and its versions: the latest 64 entries, newest last.",
        json_schema_extra=LIST_ATOMIC,
    )

    def version(self, number: int) -> VersionStatus | None:
        """Return the entry of a number, if there is one."""
        return next((version for version in self.versions if version.number == number), None)


class InferenceModel(Resource):
    """InferenceModel is a model that Triton serves: where its versions come from, where they run, and how.

    Add a version to the list and it is built, checked, and loaded beside the others on every pod;
    remove it and it is unloaded.
    """

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "has(self.spec.modelName) || size(self.metadata.name) <= 128",
                "metadata.name is the model's name in Triton and may have at most 128 characters: "
                "choose a shorter name, or set spec.modelName",
            ),
            Rule(
                f"has(self.spec.modelName) || !self.metadata.name.endsWith('{CANDIDATE_SUFFIX}')",
                f"metadata.name is the model's name in Triton and must not end in '{CANDIDATE_SUFFIX}': "
                "choose another name, or set spec.modelName",
            ),
        )
    )

    KIND: ClassVar[Kind] = Kind(
        kind="InferenceModel",
        plural="inferencemodels",
        short_name="tmodel",
        columns=(
            Column("Servers", ".status.servers"),
            Column("Backend", ".spec.backend"),
            Column("Versions", ".status.versionsWanted"),
            Column("Serving", ".status.versionsServing"),
            *ready_columns(),
        ),
    )

    spec: InferenceModelSpec = Field(description="What to serve, where, and how.")
    status: InferenceModelStatus = Field(
        default_factory=InferenceModelStatus, description="What the operator found; written by it alone."
    )

    @property
    def triton_name(self) -> str:
        """Return the model's name in Triton."""
        return self.spec.model_name or self.metadata.name

    def with_status(self, **fields: Any) -> Self:
        """Return the model with these fields of its status."""
        return self.model_copy(update={"status": self.status.model_copy(update=fields)})
