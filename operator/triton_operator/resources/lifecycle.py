"""How a TritonServer's pods take up models, are replaced, and go."""

from pydantic import ConfigDict, Field

from triton_operator.resources.common import Model
from triton_operator.resources.scalars import IntOrPercent
from triton_operator.resources.schema import Rule, rules


class Loads(Model):
    """How models are loaded on running pods."""

    max_concurrent: int = Field(
        default=8,
        ge=1,
        le=1000,
        description="How many pods of the server load at the same time; the others wait their turn and go on "
        "serving. Default: 8.",
    )
    timeout_seconds: int = Field(
        default=600,
        ge=1,
        le=86400,
        description="Longest time that one load on one pod may take, in seconds. Default: 600.",
    )


class Update(Model):
    """How pods are replaced when their template changes: a Deployment's strategy RollingUpdate."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "!has(self.maxSurge) || !(string(self.maxSurge) in ['0', '0%']) || "
                "(has(self.maxUnavailable) && !(string(self.maxUnavailable) in ['0', '0%']))",
                "update.maxSurge and update.maxUnavailable cannot both be 0, for then no pod could ever be "
                "replaced: raise maxSurge where there is room for one more pod, else maxUnavailable",
            )
        )
    )

    max_surge: IntOrPercent = Field(
        default=1,
        description="Pods that may run beyond replicas meanwhile: a number, or a percentage of replicas "
        "in quotes. 0 where no node has room (a GPU) for one more; maxUnavailable is then at least 1. "
        "Default: 1. Example: '25%'",
    )
    max_unavailable: IntOrPercent = Field(
        default=0,
        description="Pods of replicas that may be missing meanwhile: a number, or a percentage of replicas "
        "in quotes. Default: 0. Example: 1",
    )


class Disruption(Model):
    """What drains of nodes may take away: the pods' PodDisruptionBudget."""

    max_unavailable: IntOrPercent = Field(
        default=1,
        description="Pods that evictions, as by `kubectl drain`, may take away at once: a number, or a "
        "percentage of replicas in quotes. 0 refuses every eviction of a ready pod; pods that are not ready "
        "never hold up a drain. Default: 1. Example: '10%'",
    )


class Shutdown(Model):
    """How a pod goes without losing requests; together, and 5 s more, its grace period."""

    leave_seconds: int = Field(
        default=15,
        ge=0,
        le=600,
        description="How long a pod that ends goes on answering as before, while Services and clients forget "
        "it. gRPC connections are told to go after two thirds of it; clients that keep HTTP connections "
        "open must close them within it. 0 ends the pod at once. Default: 15.",
    )
    exit_timeout_seconds: int = Field(
        default=10,
        ge=1,
        le=3600,
        description="How long Triton then waits for requests that it has begun; what takes longer is cut "
        "off. Default: 10.",
    )
