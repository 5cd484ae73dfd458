"""The few parts of Kubernetes' pod spec that the kinds hand through to their pods."""

import enum
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from triton_operator.resources.common import Model
from triton_operator.resources.scalars import DnsSubdomain, LabelValue, Quantity
from triton_operator.resources.schema import LIST_ATOMIC, Rule, list_map, rules

CONTROL_KEY_VARIABLE = "TRITON_CONTROL_KEY"
"""Environment variable by which Triton gets the key of its model control API."""
POD_NAME_VARIABLE = "POD_NAME"
"""Environment variable by which Triton gets its pod's name, which it answers as its own."""


class TolerationOperator(enum.StrEnum):
    """How a toleration's key is compared."""

    EXISTS = "Exists"
    EQUAL = "Equal"


class TaintEffect(enum.StrEnum):
    """What a taint does."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class PullPolicy(enum.StrEnum):
    """When the kubelet pulls an image."""

    ALWAYS = "Always"
    IF_NOT_PRESENT = "IfNotPresent"
    NEVER = "Never"


class Toleration(Model):
    """A taint that the pods tolerate, as in a pod's spec.tolerations."""

    key: str | None = Field(
        default=None,
        max_length=317,
        description="Key of the taint; left out, with operator Exists, it matches every taint. "
        "Example: nvidia.com/gpu",
    )
    operator: TolerationOperator | None = Field(
        default=None, description="Exists (any value) or Equal (this value). Default: Equal."
    )
    value: LabelValue | None = Field(
        default=None, description="Value of the taint, for operator Equal. Example: present"
    )
    effect: TaintEffect | None = Field(
        default=None,
        description="Effect of the taint: NoSchedule, PreferNoSchedule or NoExecute. Default: all.",
    )
    toleration_seconds: int | None = Field(
        default=None,
        ge=0,
        le=2**31 - 1,
        description="With effect NoExecute: how many seconds a pod stays after the taint appeared. "
        "Default: for ever.",
    )


class ResourceRequirements(Model):
    """What the container asks of its node, as in a container's resources."""

    limits: Annotated[Mapping[str, Quantity], Field(max_length=32)] = Field(
        default_factory=dict, description="Most that the container may use. Example: {cpu: 4, memory: 8Gi}"
    )
    requests: Annotated[Mapping[str, Quantity], Field(max_length=32)] = Field(
        default_factory=dict,
        description="What the scheduler sets aside for the container. Default: the limits. "
        "Example: {cpu: 500m, memory: 2Gi}",
    )


class LocalObjectReference(Model):
    """An object of the same namespace."""

    name: DnsSubdomain = Field(description="Name of a Secret in this namespace. Example: registry-login")


class EnvVar(Model):
    """An environment variable with a plain value."""

    name: str = Field(
        min_length=1,
        max_length=256,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="Name of the variable. TRITON_CONTROL_KEY and POD_NAME are the operator's. Example: "
        "OMP_NUM_THREADS",
        json_schema_extra=rules(
            Rule(
                f"self != '{CONTROL_KEY_VARIABLE}' && self != '{POD_NAME_VARIABLE}'",
                f"env.name {CONTROL_KEY_VARIABLE} and {POD_NAME_VARIABLE} are set by the operator: choose "
                "another name",
            )
        ),
    )
    value: str = Field(
        default="", max_length=4096, description="Value of the variable, taken literally. Default: empty."
    )


NodeSelector = Annotated[Mapping[str, LabelValue], Field(max_length=32)]
Tolerations = Annotated[tuple[Toleration, ...], Field(max_length=32)]
ImagePullSecrets = Annotated[tuple[LocalObjectReference, ...], Field(max_length=16)]

TOLERATIONS_LIST = LIST_ATOMIC
PULL_SECRETS_LIST = list_map("name")


class PodSettings(Model):
    """Where pods run and what they may use."""

    resources: ResourceRequirements | None = Field(
        default=None,
        description="Requests and limits of the container. Default: the operator's own, small ones.",
    )
    node_selector: NodeSelector = Field(
        default_factory=dict,
        description="Labels that a node must have. Default: none. Example: {kubernetes.io/arch: amd64}",
    )
    tolerations: Tolerations = Field(
        default=(),
        description="Taints that the pods tolerate. Default: none.",
        json_schema_extra=TOLERATIONS_LIST,
    )
