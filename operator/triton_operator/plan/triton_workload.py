"""What stands for a TritonServer in the cluster: its Deployment, its Services and its disruption budget."""

from __future__ import annotations

from triton_operator.plan import gpu_labels, names, podspec, release_gate, target
from triton_operator.plan.keeper_workload import KEY_FIELD
from triton_operator.plan.podspec import Manifest
from triton_operator.resources.gpu import Gpu, TargetStatus
from triton_operator.resources.lifecycle import Shutdown
from triton_operator.resources.pods import CONTROL_KEY_VARIABLE, POD_NAME_VARIABLE
from triton_operator.resources.triton_server import TritonServer

HTTP_PORT, GRPC_PORT, METRICS_PORT = 8000, 8001, 8002
CONTAINER = "triton"
SPARE_SECONDS = 5
"""How long Kubernetes waits beyond all that a pod which ends may take."""
CONTROL_PROTOCOL = f"model-repository,model-config:triton-operator-key=$({CONTROL_KEY_VARIABLE})"
_ENTRY = 'rm -rf /dev/shm/*; exec tritonserver "$@"'
"""The Python backend's shared memory stays behind when a container is killed, as the volume outlives it: a
few crashes would fill it."""


def pod_labels(server: TritonServer) -> dict[str, str]:
    """Return the labels that a server's pods, and nothing else, carry."""
    return names.labels("triton", server=server.metadata.name)


def selector(server: TritonServer) -> str:
    """Return the label selector of a server's pods as a string, for the scale subresource."""
    return ",".join(f"{key}={value}" for key, value in sorted(pod_labels(server).items()))


def deployment(
    server: TritonServer,
    *,
    release: str,
    claim: str,
    secret: str,
    replicas: int,
    hardware: TargetStatus | None = None,
) -> Manifest:
    """Return the Deployment of a server's pods, which start with what their tree holds.

    With GPUs its pods run on the product of `hardware` alone, and an annotation keeps it, should the
    status get lost while nodes have no labels.
    """
    labels = pod_labels(server)
    pod = _pod(server, release=release, claim=claim, secret=secret)
    metadata = podspec.metadata(names.deployment_of_server(server.metadata.name), server, labels)
    if server.spec.gpu is not None and hardware is not None:
        pod["affinity"] = _affinity(server.spec.gpu, hardware)
        metadata["annotations"] = {names.TARGET: hardware.to_text()}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": replicas,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": server.spec.update.to_manifest()},
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": {**labels, names.RELEASE: release, names.SERVING: "true"}},
                "spec": pod,
            },
        },
    }


def remembered_target(live: Manifest | None) -> TargetStatus | None:
    """Return the hardware that a Deployment was made for, or None when it doesn't say."""
    text = ((live or {}).get("metadata", {}).get("annotations") or {}).get(names.TARGET)
    return TargetStatus.from_text(text) if text else None


def services(server: TritonServer) -> list[Manifest]:
    """Return the Service that clients call, and the headless one for gRPC clients that balance themselves."""
    return [
        _service(server, server.service_name, {"type": server.spec.service.type.value}),
        _service(server, server.headless_service_name, {"clusterIP": "None"}),
    ]


def disruption_budget(server: TritonServer) -> Manifest:
    """Return what holds up drains that would take too many of a server's pods at once."""
    labels = pod_labels(server)
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": podspec.metadata(names.deployment_of_server(server.metadata.name), server, labels),
        "spec": {
            **server.spec.disruption.to_manifest(),
            "selector": {"matchLabels": labels},
            # A pod that isn't ready serves nobody; by default it would hold up a drain for ever.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }


def _service(server: TritonServer, name: str, more: Manifest) -> Manifest:
    labels = pod_labels(server)
    ports = [
        {"name": "http", "port": HTTP_PORT, "targetPort": "http", "protocol": "TCP"},
        {"name": "grpc", "port": GRPC_PORT, "targetPort": "grpc", "protocol": "TCP"},
        {"name": "metrics", "port": METRICS_PORT, "targetPort": "metrics", "protocol": "TCP"},
    ]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": podspec.metadata(name, server, labels),
        "spec": {"selector": {**labels, names.SERVING: "true"}, "ports": ports, **more},
    }


def _pod(server: TritonServer, *, release: str, claim: str, secret: str) -> Manifest:
    spec = server.spec
    pull_secrets = tuple(reference.name for reference in spec.image_pull_secrets)
    pod = podspec.base_pod(pull_secrets=pull_secrets, placement=spec)
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": pod_labels(server)},
    }
    if spec.gpu is not None:
        pod["initContainers"] = [release_gate.container(server, tree=_tree(server, release))]
    return pod | {
        "terminationGracePeriodSeconds": _grace_seconds(spec.shutdown),
        "topologySpreadConstraints": [spread],
        "containers": [_container(server, release=release, secret=secret)],
        "volumes": [
            podspec.claim_volume("repository", claim, read_only=True),
            podspec.scratch("tmp", size="1Gi"),
            podspec.scratch("shm", size=spec.shm_size, in_memory=True),
        ],
    }


def _container(server: TritonServer, *, release: str, secret: str) -> Manifest:
    spec = server.spec
    key = {"secretKeyRef": {"name": secret, "key": KEY_FIELD}}
    container: Manifest = {
        "name": CONTAINER,
        "image": spec.image,
        "command": ["sh", "-c", _ENTRY, "tritonserver"],
        "args": _arguments(server, release=release),
        "env": [
            {"name": CONTROL_KEY_VARIABLE, "valueFrom": key},
            {"name": POD_NAME_VARIABLE, "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            *({"name": each.name, "value": podspec.literal(each.value)} for each in spec.env),
        ],
        "ports": [
            {"name": "http", "containerPort": HTTP_PORT},
            {"name": "grpc", "containerPort": GRPC_PORT},
            {"name": "metrics", "containerPort": METRICS_PORT},
        ],
        # Triton opens its ports when every model of the tree was tried, however long that takes.
        "startupProbe": _probe("/v2/health/live", period=1, failures=3600),
        "readinessProbe": _probe("/v2/health/ready", period=2, failures=2),
        "livenessProbe": _probe("/v2/health/live", period=10, failures=6),
        "securityContext": podspec.CONTAINER_SECURITY,
        "volumeMounts": [
            podspec.mount("repository", podspec.REPOSITORY_MOUNT, read_only=True),
            podspec.mount("tmp", "/tmp", read_only=False),  # noqa: S108 - in the pod
            podspec.mount("shm", "/dev/shm", read_only=False),  # noqa: S108 - in the pod
        ],
    }
    if spec.shutdown.leave_seconds:  # not every Kubernetes takes a sleep of 0 s
        container["lifecycle"] = {"preStop": {"sleep": {"seconds": spec.shutdown.leave_seconds}}}
    if spec.image_pull_policy is not None:
        container["imagePullPolicy"] = spec.image_pull_policy.value
    if spec.gpu is not None:
        container["resources"] = podspec.with_gpus(spec.resources, spec.gpu)
    elif spec.resources is not None:
        container["resources"] = spec.resources.to_manifest()
    return container


def _affinity(gpu: Gpu, hardware: TargetStatus) -> Manifest:
    """Return the affinity to a product, shared or not; nodes without labels do if none is relied on."""
    products = (hardware.product, hardware.product + gpu_labels.SHARED)
    label = gpu_labels.label_of(gpu.resource, "product")
    return podspec.on_products(label, products, or_unlabelled=target.is_stated(gpu))


def _tree(server: TritonServer, release: str) -> str:
    return f"{podspec.REPOSITORY_MOUNT}/servers/{server.metadata.name}/{release}"


def _arguments(server: TritonServer, *, release: str) -> list[str]:
    return [
        # Triton answers it as its name: an IP address may be another pod's by now.
        f"--id=$({POD_NAME_VARIABLE})",
        f"--model-repository={_tree(server, release)}",
        "--model-control-mode=explicit",
        "--load-model=*",
        "--exit-on-error=false",
        # The configuration is always complete; completing it costs a look into every model.
        "--disable-auto-complete-config",
        f"--exit-timeout-secs={server.spec.shutdown.exit_timeout_seconds}",
        *_connection_age(server.spec.shutdown),
        # One model that fails must not take the pod, and all the others, out of the Service.
        "--strict-readiness=false",
        f"--grpc-restricted-protocol={CONTROL_PROTOCOL}",
        f"--http-restricted-api={CONTROL_PROTOCOL}",
        *server.spec.args,
    ]


def _connection_age(shutdown: Shutdown) -> list[str]:
    """Return the argument that makes gRPC clients look for another pod while this one still answers.

    Triton never asks a client to leave, and gRPC adds up to a tenth at random.
    """
    if not shutdown.leave_seconds:
        return []
    return [f"--grpc-max-connection-age={shutdown.leave_seconds * 1000 * 2 // 3}"]


def _grace_seconds(shutdown: Shutdown) -> int:
    return shutdown.leave_seconds + shutdown.exit_timeout_seconds + SPARE_SECONDS


def _probe(path: str, *, period: int, failures: int) -> Manifest:
    return {
        "httpGet": {"path": path, "port": "http"},
        "periodSeconds": period,
        "failureThreshold": failures,
        "timeoutSeconds": 5,
    }
