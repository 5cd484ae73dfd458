"""TritonServer: a Deployment of Triton pods on one target, and its Services."""

import enum
import re
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field

from engine_builder.contract import Target
from triton_operator.resources.common import Model, Resource, Status
from triton_operator.resources.gpu import Builds, Gpu, TargetStatus
from triton_operator.resources.lifecycle import Disruption, Loads, Shutdown, Update
from triton_operator.resources.pods import (
    PULL_SECRETS_LIST,
    EnvVar,
    ImagePullSecrets,
    PodSettings,
    PullPolicy,
)
from triton_operator.resources.scalars import DnsLabel, Quantity
from triton_operator.resources.schema import (
    LIST_ATOMIC,
    LIST_SET,
    Column,
    Kind,
    Rule,
    Scale,
    immutable,
    list_map,
    ready_columns,
    rules,
)
from triton_operator.resources.version import Backend

RELEASE_PATTERN = r"^[0-9][0-9]\.[0-9][0-9]$"
SERVICE_NAME_PATTERN = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
NAME_MAX_LENGTH = 50
"""Children's names and labels put a word before and after the name, within 63 characters."""

OWNED_FLAGS = (
    "--id",
    "--model-control-mode",
    "--model-repository",
    "--model-store",
    "--model-namespacing",
    "--load-model",
    "--exit-on-error",
    "--exit-timeout-secs",
    "--disable-auto-complete-config",
    "--strict-readiness",
    "--allow-http",
    "--allow-grpc",
    "--allow-metrics",
    "--allow-sagemaker",
    "--allow-vertex-ai",
    "--http-port",
    "--grpc-port",
    "--metrics-port",
    "--http-address",
    "--grpc-address",
    "--metrics-address",
    "--grpc-max-connection-age",
    "--grpc-use-ssl",
    "--grpc-use-ssl-mutual",
    "--grpc-restricted-protocol",
    "--http-restricted-api",
)
"""Flags of tritonserver that the operator sets, or that would open or close what it relies on."""

# Triton reads its command line with getopt_long, which takes any unambiguous beginning of a
# flag for the flag; so does the rule. '-' and '--' are beginnings of all of them.
_ARGS_RULE = (
    f"![{', '.join(repr(flag) for flag in OWNED_FLAGS)}].exists(flag, flag.startsWith(self.split('=')[0]))"
)

COMPILER_IMAGE = "nvcr.io/nvidia/tensorrt:{release}-py3"
"""Image that has the same TensorRT as Triton's image of the release."""

_TAG_RELEASE = re.compile(r":([0-9]{2}\.[0-9]{2})(?:-[\w.-]+)?(?:@sha256:[0-9a-f]+)?$")


class ServiceType(enum.StrEnum):
    """How the Service is reached."""

    CLUSTER_IP = "ClusterIP"
    NODE_PORT = "NodePort"
    LOAD_BALANCER = "LoadBalancer"


class ServiceSettings(Model):
    """The Service in front of the pods."""

    name: str | None = Field(
        default=None,
        min_length=1,
        max_length=58,
        pattern=SERVICE_NAME_PATTERN,
        description="Name of the Service; a second, headless one is called <name>-pods, for gRPC clients "
        "that balance "
        "themselves. Default: triton-<name of the TritonServer>. Example: vision",
    )
    type: ServiceType = Field(
        default=ServiceType.CLUSTER_IP,
        description="ClusterIP (inside the cluster), NodePort or LoadBalancer. Default: ClusterIP.",
    )


def _gpu_counted_once(part: str) -> Rule:
    """Return the rule that only gpu.count says how many GPUs a pod has."""
    return Rule(
        f"!has(self.gpu) || !has(self.resources) || !has(self.resources.{part}) || "
        f"!(self.gpu.resource in self.resources.{part})",
        f"resources.{part} names gpu.resource: remove it there, gpu.count says how many GPUs a pod has",
        field_path=f".resources.{part}",
    )


class TritonServerSpec(PodSettings):
    """Which Triton runs, how often and where."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            _gpu_counted_once("limits"),
            _gpu_counted_once("requests"),
            Rule(
                "has(self.gpu) || !has(self.builds)",
                "builds is for servers with GPUs: remove it, or set gpu ({} for one nvidia.com/gpu)",
                field_path=".builds",
            ),
        )
    )

    repository: DnsLabel = Field(
        default="default",
        description="ModelRepository of this namespace that the pods read. One that does not exist yet is "
        "waited for. "
        "It cannot change. Default: default.",
        json_schema_extra=rules(
            immutable(
                "self == oldSelf", "repository cannot change: create another TritonServer and delete this one"
            )
        ),
    )
    image: str = Field(
        min_length=1,
        max_length=512,
        pattern=r"^\S+$",
        description="Image of Triton. Example: nvcr.io/nvidia/tritonserver:26.07-py3",
    )
    release: str | None = Field(
        default=None,
        max_length=5,
        pattern=RELEASE_PATTERN,
        description="Triton release of the image, year and month. Default: read from the image's tag; "
        "needed when the tag "
        "does not say, as with a digest or a mirror. Example: '26.07'",
        json_schema_extra=rules(
            Rule(
                f"self.matches(r'{RELEASE_PATTERN}')",
                "release must be year and month of a Triton release in quotes, such as '26.07'",
            )
        ),
    )
    compiler_image: str | None = Field(
        default=None,
        min_length=1,
        max_length=512,
        pattern=r"^\S+$",
        description="Image in which engines are compiled; its TensorRT must be that of image. Default: "
        "nvcr.io/nvidia/tensorrt:<release>-py3. Example: registry.example/tensorrt:26.07-py3",
    )
    gpu: Gpu | None = Field(
        default=None,
        description="GPUs of each pod. All pods of a server run on one product, its target; another "
        "product is another TritonServer. Default: none, a server on CPUs. Example: {product: NVIDIA-A10}",
    )
    builds: Builds | None = Field(
        default=None, description="How engines are compiled on the server's GPUs. Default: one at a time."
    )
    replicas: int = Field(
        default=1,
        ge=0,
        le=1000,
        description="Number of pods, once a model is there to serve; before that there is none. Default: 1.",
    )
    image_pull_secrets: ImagePullSecrets = Field(
        default=(),
        description="Secrets of this namespace with which the image is pulled. Default: none. Example: "
        "[{name: registry-login}]",
        json_schema_extra=PULL_SECRETS_LIST,
    )
    image_pull_policy: PullPolicy | None = Field(
        default=None,
        description="When the image is pulled: Always, IfNotPresent or Never. Default: Kubernetes' own, "
        "which depends on the tag.",
    )
    shm_size: Quantity = Field(
        default="64Mi",
        description="Size of /dev/shm, which Python backends and shared-memory clients use; it counts as the "
        "pod's memory. Default: 64Mi. Example: 1Gi",
    )
    args: Annotated[
        tuple[
            Annotated[
                str,
                Field(
                    min_length=1,
                    max_length=1024,
                    json_schema_extra=rules(
                        Rule(
                            _ARGS_RULE,
                            "args must not set what the operator sets itself (model control, repository, "
                            "ports, readiness, exit, identity, age of connections, restricted APIs): "
                            "remove this argument",
                        )
                    ),
                ),
            ],
            ...,
        ],
        Field(max_length=64),
    ] = Field(
        default=(),
        description="More arguments for tritonserver. Those that the operator sets itself are refused. "
        "Default: none. "
        "Example: ['--log-verbose=1']",
        json_schema_extra=LIST_ATOMIC,
    )
    env: Annotated[tuple[EnvVar, ...], Field(max_length=64)] = Field(
        default=(),
        description="Environment variables of Triton's container. Default: none. Example: [{name: "
        "OMP_NUM_THREADS, value: '2'}]",
        json_schema_extra=list_map("name"),
    )
    service: ServiceSettings = Field(
        default_factory=ServiceSettings,
        description="The Service in front of the pods: HTTP on 8000, gRPC on 8001, metrics on 8002.",
    )
    allowed_backends: Annotated[tuple[Backend, ...], Field(min_length=1, max_length=16)] = Field(
        default=(Backend.ONNX_RUNTIME, Backend.OPENVINO, Backend.TENSORRT),
        description="Backends whose models may run here; models of others are refused with "
        "BackendNotAllowed. "
        "Default: [ONNXRuntime, OpenVINO, TensorRT].",
        json_schema_extra=LIST_SET,
    )
    loads: Loads = Field(default_factory=Loads, description="How models are loaded on running pods.")
    update: Update = Field(
        default_factory=Update,
        description="How pods are replaced when their image or another setting of theirs changes.",
    )
    disruption: Disruption = Field(
        default_factory=Disruption, description="How many pods drains of nodes may take away at once."
    )
    shutdown: Shutdown = Field(
        default_factory=Shutdown, description="How a pod that ends does so without losing requests."
    )


class Lacking(Model):
    """A pod that lacks a model which it should serve."""

    pod: str = Field(max_length=253, description="Name of the pod. Example: triton-a10-5d8f7c9b6-x2x7k")
    model: str = Field(max_length=128, description="Name of the model in Triton. Example: text-detection")
    message: str = Field(max_length=1024, description="Why, and what happens next, for people.")


class TritonServerStatus(Status):
    """What the operator found."""

    replicas: int | None = Field(default=None, ge=0, le=2**31 - 1, description="Pods that exist.")
    ready_replicas: int | None = Field(default=None, ge=0, le=2**31 - 1, description="Pods that are ready.")
    selector: str | None = Field(
        default=None, max_length=1024, description="Label selector of the pods, for the scale subresource."
    )
    release: str | None = Field(
        default=None, max_length=5, description="Triton release that is served. Example: 26.07"
    )
    target: TargetStatus | None = Field(
        default=None,
        description="Hardware that the server is for. Once known it is kept, whatever becomes of the labels "
        "of nodes, until spec.gpu says otherwise.",
    )
    revision: str | None = Field(
        default=None,
        max_length=64,
        description="Revision of the tree that the pods read. Example: 5f1c0a9e2b7d4c11",
    )
    models: int | None = Field(
        default=None,
        ge=0,
        le=2**31 - 1,
        description="Models of which at least one version is published here.",
    )
    pods: str | None = Field(
        default=None, max_length=32, description="Ready pods of all wanted, for printing. Example: 2/2"
    )
    lacking: Annotated[tuple[Lacking, ...], Field(max_length=64)] = Field(
        default=(),
        description="Pods that could not load a model, at most 64. Where other pods serve the model, such a "
        "pod gets no requests.",
        json_schema_extra=list_map("pod", "model"),
    )


class TritonServer(Resource):
    """TritonServer is a set of equal Triton pods on one kind of hardware, with a Service in front of them.

    InferenceModels name the TritonServers that serve them; the pods start when the first model is ready.
    """

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                f"size(self.metadata.name) <= {NAME_MAX_LENGTH} && !self.metadata.name.contains('.')",
                f"metadata.name of a TritonServer has at most {NAME_MAX_LENGTH} characters and no dot, "
                "because Services are "
                "named after it: choose another name",
            )
        )
    )

    KIND: ClassVar[Kind] = Kind(
        kind="TritonServer",
        plural="tritonservers",
        short_name="tserver",
        columns=(
            Column("Repository", ".spec.repository"),
            Column("Release", ".status.release"),
            Column("Target", ".status.target.product"),
            Column("Pods", ".status.pods"),
            Column("Models", ".status.models", type="integer"),
            *ready_columns(),
        ),
        scale=Scale(),
    )

    spec: TritonServerSpec = Field(description="Which Triton runs, how often and where.")
    status: TritonServerStatus = Field(
        default_factory=TritonServerStatus, description="What the operator found; written by it alone."
    )

    @property
    def release(self) -> str | None:
        """Return the Triton release: the spec's own word, else what the image's tag says, else None."""
        if self.spec.release is not None:
            return self.spec.release
        found = _TAG_RELEASE.search(self.spec.image)
        return found.group(1) if found else None

    @property
    def target(self) -> Target | None:
        """Return the GPU that engines are compiled for, or None on a CPU server or while it isn't known."""
        return self.status.target.target if self.status.target is not None else None

    @property
    def compiler_image(self) -> str | None:
        """Return the image in which engines are compiled, or None while the release isn't known."""
        if self.spec.compiler_image is not None:
            return self.spec.compiler_image
        return COMPILER_IMAGE.format(release=self.release) if self.release is not None else None

    @property
    def service_name(self) -> str:
        """Return the name of the Service in front of the pods."""
        return self.spec.service.name or f"triton-{self.metadata.name}"

    @property
    def headless_service_name(self) -> str:
        """Return the name of the Service that resolves to each pod."""
        return f"{self.service_name}-pods"
