"""GPUs of a TritonServer: what its pods ask for, what they are, and how engines are compiled on them."""

import enum
from typing import Annotated, Self

from pydantic import Field, ValidationError

from engine_builder.contract import Target
from triton_operator.resources.common import Model
from triton_operator.resources.pods import TOLERATIONS_LIST, ResourceRequirements, Tolerations
from triton_operator.resources.scalars import DnsSubdomain, LabelValue
from triton_operator.resources.schema import Rule, rules

RESOURCE_PATTERN = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
LABEL_VALUE_PATTERN = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"
COMPUTE_CAPABILITY_PATTERN = r"^([1-9][0-9]?\.[0-9])?$"

CPU = "cpu"
"""Product of a server without GPUs."""


class Gpu(Model):
    """The GPUs of one pod. What isn't said of the product is read from the labels of nodes."""

    resource: Annotated[str, Field(min_length=3, max_length=317, pattern=RESOURCE_PATTERN)] = Field(
        default="nvidia.com/gpu",
        description="Extended resource by which a pod gets its GPUs: nvidia.com/gpu, or that of a MIG "
        "profile under the mixed strategy. Default: nvidia.com/gpu. Example: nvidia.com/mig-1g.10gb",
        json_schema_extra=rules(
            Rule(
                f"self.matches(r'{RESOURCE_PATTERN}')",
                "gpu.resource must be the name of an extended resource with its domain, such as "
                "nvidia.com/gpu",
            )
        ),
    )
    count: int = Field(
        default=1, ge=1, le=64, description="GPUs of one pod, all of one product. Default: 1. Example: 2"
    )
    product: LabelValue = Field(
        default="",
        pattern=LABEL_VALUE_PATTERN,
        description="Product, as the label nvidia.com/gpu.product has it. Needed when the nodes that pods "
        "may run on have several, or no labels. Default: read from the labels. Example: NVIDIA-A10",
        json_schema_extra=rules(
            Rule(
                f"self.matches(r'{LABEL_VALUE_PATTERN}')",
                "gpu.product must be the value of a label, such as NVIDIA-A10: write '-' for blanks",
            )
        ),
    )
    compute_capability: str = Field(
        default="",
        max_length=16,
        pattern=COMPUTE_CAPABILITY_PATTERN,
        description="CUDA compute capability of the product. Default: read from the labels. Example: '8.6'",
        json_schema_extra=rules(
            Rule(
                f"self.matches(r'{COMPUTE_CAPABILITY_PATTERN}')",
                "gpu.computeCapability must be major and minor number in quotes, such as '8.6'",
            )
        ),
    )
    memory_mib: int = Field(
        default=0,
        alias="memoryMiB",
        ge=0,
        le=2**31 - 1,
        description="Memory of one GPU, or of one MIG profile, in MiB. Default: 0, read from the labels. "
        "Example: 23028",
    )


class WhenNoFreeGpu(enum.StrEnum):
    """What happens to a compile Job for which the scheduler finds no free GPU."""

    WAIT = "Wait"
    BORROW_REPLICA = "BorrowReplica"


class Builds(Model):
    """How engines are compiled on the GPUs of a server."""

    max_concurrent: int = Field(
        default=1, ge=1, le=100, description="Compile Jobs that run for the server at once. Default: 1."
    )
    when_no_free_gpu: WhenNoFreeGpu = Field(
        default=WhenNoFreeGpu.WAIT,
        alias="whenNoFreeGPU",
        description="What a compile Job does that finds no free GPU. Wait: it waits. BorrowReplica: one of "
        "the server's pods is ended, the last one too, and comes back when the Job has ended; while the last "
        "one is lent, requests fail. Default: Wait.",
    )
    resources: ResourceRequirements | None = Field(
        default=None,
        description="Requests and limits of a compile Job, its GPUs left out. Default: the operator's own. "
        "Example: {limits: {memory: 16Gi}}",
    )
    priority_class_name: DnsSubdomain | None = Field(
        default=None, description="PriorityClass of compile Jobs. Default: the cluster's. Example: low"
    )
    queue_name: DnsSubdomain | None = Field(
        default=None,
        description="Queue of Kueue (the label kueue.x-k8s.io/queue-name) that compile Jobs go through. "
        "Default: none. Example: gpu-builds",
    )
    timeout_seconds: int = Field(
        default=3600, ge=1, le=604800, description="Longest time of one compile Job. Default: 3600 (an hour)."
    )
    tolerations: Tolerations | None = Field(
        default=None,
        description="Taints that compile Jobs tolerate. Default: those of the server's pods.",
        json_schema_extra=TOLERATIONS_LIST,
    )


class TargetStatus(Model):
    """The hardware that a server's pods run on, and that engines are compiled for."""

    product: str = Field(max_length=63, description="Product of the GPU, or cpu. Example: NVIDIA-A10")
    compute_capability: str | None = Field(
        default=None, max_length=16, description="CUDA compute capability. Example: '8.6'"
    )
    memory_mib: int | None = Field(
        default=None,
        alias="memoryMiB",
        ge=0,
        le=2**31 - 1,
        description="Memory of one GPU or MIG profile, in MiB. Example: 23028",
    )
    resource: str | None = Field(
        default=None,
        max_length=317,
        description="Resource by which the pods get their GPUs. Example: nvidia.com/gpu",
    )

    @property
    def target(self) -> Target | None:
        """Return what engines are compiled for, or None without a GPU."""
        if not self.compute_capability or not self.memory_mib:
            return None
        return Target(self.product, self.compute_capability, self.memory_mib)

    def to_text(self) -> str:
        """Return the JSON form on one line, as an annotation holds it."""
        return self.model_dump_json(by_alias=True, exclude_none=True)

    @classmethod
    def from_text(cls, text: str) -> Self | None:
        """Return what `to_text` wrote, or None for anything else."""
        try:
            return cls.model_validate_json(text)
        except ValidationError:
            return None
