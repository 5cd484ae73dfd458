"""How Triton serves a model, and when a new version's answers count as right."""

import enum
from collections.abc import Mapping
from typing import Annotated

from pydantic import ConfigDict, Field

from triton_operator.resources.common import Model
from triton_operator.resources.scalars import (
    COSINE_PATTERN,
    SHA256_PATTERN,
    DnsSubdomain,
    Sha256,
)
from triton_operator.resources.schema import LIST_ATOMIC, LIST_SET, Rule, rules
from triton_operator.resources.version import NPZ_URI_FORMS, NPZ_URI_PATTERN, SECRET_FOR_REMOTE

RESERVED_PARAMETERS = "triton-operator.io/"

Label = Annotated[
    str,
    Field(
        max_length=256,
        json_schema_extra=rules(
            Rule(
                r"!self.matches('[\n\r]')",
                "serving.labels: a label is one line: take the line break out",
            )
        ),
    ),
]
Labels = Annotated[tuple[Label, ...], Field(min_length=1, max_length=4096, json_schema_extra=LIST_ATOMIC)]


class InstanceKind(enum.StrEnum):
    """Where instances of a model run."""

    AUTO = "Auto"
    CPU = "CPU"
    GPU = "GPU"


class DynamicBatching(Model):
    """How Triton puts requests together."""

    preferred_batch_sizes: Annotated[
        tuple[Annotated[int, Field(ge=1, le=65536)], ...], Field(max_length=32)
    ] = Field(
        default=(),
        description="Batch sizes that Triton tries to reach, in samples, none above maxBatchSize. "
        "Default: as large as possible without waiting. Example: [8, 16]",
        json_schema_extra=LIST_SET,
    )
    max_queue_delay_microseconds: int = Field(
        default=0,
        ge=0,
        le=60_000_000,
        description="How long a request may wait for others to join its batch, in microseconds. Default: "
        "0. Example: 500",
    )


class InstanceGroup(Model):
    """Copies of the model on every pod."""

    count: int = Field(
        default=1, ge=1, le=256, description="How many copies run at the same time on each pod. Default: 1."
    )
    kind: InstanceKind = Field(
        default=InstanceKind.AUTO,
        description="CPU, GPU, or Auto: on the GPU where the pod has one. Default: Auto.",
    )


class Serving(Model):
    """How Triton serves the model: becomes its config.pbtxt."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "!has(self.maxBatchSize) || !has(self.dynamicBatching) || "
                "!has(self.dynamicBatching.preferredBatchSizes) || "
                "self.dynamicBatching.preferredBatchSizes.all(batch, batch <= self.maxBatchSize)",
                "dynamicBatching.preferredBatchSizes must not be above serving.maxBatchSize: raise the "
                "one or lower the other",
                field_path=".dynamicBatching.preferredBatchSizes",
            ),
            Rule(
                "!has(self.maxBatchSize) || self.maxBatchSize > 0 || !has(self.dynamicBatching)",
                "dynamicBatching needs batches: leave it out, or set serving.maxBatchSize to 1 or more",
                field_path=".dynamicBatching",
            ),
        )
    )

    max_batch_size: int | None = Field(
        default=None,
        ge=0,
        le=65536,
        description="Largest batch that Triton makes, in samples; 0 switches batching off, for models "
        "whose first "
        "dimension is not a batch. Default: the smallest build.maxBatchSize of the versions, and never more.",
    )
    dynamic_batching: DynamicBatching | None = Field(
        default=None,
        description="Lets Triton put requests of several clients into one batch. Default: off. "
        "Example: {preferredBatchSizes: [8, 16], maxQueueDelayMicroseconds: 500}",
    )
    instances: Annotated[tuple[InstanceGroup, ...], Field(max_length=8)] = Field(
        default=(),
        description="Copies of the model on every pod. Default: one, on the GPU where there is one. "
        "Example: [{count: 2, kind: CPU}]",
        json_schema_extra=LIST_ATOMIC,
    )
    parameters: Annotated[Mapping[str, Annotated[str, Field(max_length=1024)]], Field(max_length=64)] = Field(
        default_factory=dict,
        description="Parameters for the backend, passed on as they are. Keys of 'triton-operator.io/' are "
        "the "
        "operator's. Example: {intra_op_thread_count: '2'}",
        json_schema_extra=rules(
            Rule(
                "self.all(key, size(key) > 0 && size(key) <= 256 && "
                f"!key.startsWith('{RESERVED_PARAMETERS}'))",
                "serving.parameters: a key has 1 to 256 characters and does not start with "
                f"'{RESERVED_PARAMETERS}'",
            )
        ),
    )
    warmup: bool = Field(
        default=False,
        description="Lets Triton answer requests of its own, the smallest and the largest batch of zeros, "
        "before a version counts as loaded, so that no client waits for what only a first request does. The "
        "model must be able to answer them, else it is not loaded. One whose inputs have dimensions of "
        "unknown size is loaded without. Default: false.",
    )
    labels: Annotated[Mapping[str, Labels], Field(max_length=16)] = Field(
        default_factory=dict,
        description="Names of the classes of an output, in their order, which Triton returns when a request "
        "asks for the best classes. Keys are outputs of the model. Changing them loads all versions anew. "
        "Default: none. Example: {scores: [cat, dog]}",
        json_schema_extra=rules(
            Rule(
                "self.all(output, size(output) > 0 && size(output) <= 256)",
                "serving.labels: a key is the name of an output, of 1 to 256 characters",
            )
        ),
    )


class Samples(Model):
    """Inputs of the user's own, with which versions are checked."""

    model_config = ConfigDict(json_schema_extra=rules(SECRET_FOR_REMOTE))

    uri: str = Field(
        min_length=1,
        max_length=1024,
        pattern=NPZ_URI_PATTERN,
        description="An .npz file of NumPy with one array for each input of the model: with a batch, any "
        "number of rows, which are asked one by one; without, one sample, or several under keys "
        "<number>/<input>. pvc://<claim>/<path>.npz, a PersistentVolumeClaim of this namespace and a path "
        "inside it; s3://, gs://, az://, https:// and oci:// are as in source.uri. "
        "Example: pvc://models/detector/samples.npz",
        json_schema_extra=rules(
            Rule(
                f"self.matches(r'{NPZ_URI_PATTERN}')",
                f"check.samples.uri must be {NPZ_URI_FORMS}",
            ),
            Rule(
                "!self.contains('/../')",
                "check.samples.uri must not contain '..': write the path from the top of the volume",
            ),
        ),
    )
    secret_name: DnsSubdomain | None = Field(
        default=None,
        description="Secret of this namespace with the keys to the file; spec.allowedSecrets of the "
        "ModelRepository must name it. Default: none. Example: s3-read",
    )
    sha256: Sha256 | None = Field(
        default=None,
        description="SHA-256 of the file, 64 lower-case hex digits. A file with another digest is refused. "
        "Default: found out at the first look.",
        json_schema_extra=rules(
            Rule(
                f"self.matches('{SHA256_PATTERN}')",
                "check.samples.sha256 must be 64 lower-case hex digits, as `sha256sum` prints them",
            )
        ),
    )


class Check(Model):
    """When the answers of a new version count as right."""

    minimum_cosine: str = Field(
        default="0.99",
        min_length=1,
        max_length=16,
        pattern=COSINE_PATTERN,
        description="Lowest cosine between Triton's answers and those of the source itself on the same "
        "inputs, "
        "as a decimal string from 0 to 1. A version below it is taken back; one whose precision is put into "
        "it isn't even built. Default: '0.99'.",
        json_schema_extra=rules(
            Rule(
                f"self.matches(r'{COSINE_PATTERN}')",
                "check.minimumCosine must be a decimal from 0 to 1 in quotes, such as '0.99'",
            )
        ),
    )
    samples: Samples | None = Field(
        default=None,
        description="Inputs of your own to compare the answers on, besides those that are made up to fit "
        "the model. Default: none. Example: {uri: pvc://models/detector/samples.npz}",
    )
