"""Jobs that compile engines on a GPU: which server lends its settings, when one may start, how it looks."""

from __future__ import annotations

from collections.abc import Iterable

from engine_builder.codec import to_json
from triton_operator.plan import attempts, jobs, names, podspec
from triton_operator.plan.gpu_labels import label_of
from triton_operator.plan.podspec import Images, Manifest
from triton_operator.resources.engine import Engine
from triton_operator.resources.gpu import Builds, Gpu
from triton_operator.resources.pods import ResourceRequirements
from triton_operator.resources.triton_server import TritonServer

KUEUE_QUEUE = "kueue.x-k8s.io/queue-name"
"""Label by which Kueue takes a Job into one of its queues."""

_CODE = "/code"
_SCRATCH_SIZE = "8Gi"
_RESOURCES = ResourceRequirements(requests={"cpu": "1", "memory": "2Gi"})


def settings_of(server: TritonServer) -> Builds:
    """Return how a server's engines are compiled."""
    return server.spec.builds or Builds()


def lender(engine: Engine, servers: Iterable[TritonServer]) -> TritonServer | None:
    """Return the server whose settings the engine's Jobs take: the oldest of its release and GPU."""
    fitting = [
        server
        for server in servers
        if server.spec.repository == engine.spec.repository
        and server.release == engine.spec.release
        and server.spec.gpu is not None
        and server.target == engine.target
        and server.metadata.deletion_timestamp is None
    ]
    return min(fitting, key=_age, default=None)


def _age(server: TritonServer) -> tuple[str, str]:
    created = server.metadata.creation_timestamp
    return (created.isoformat() if created else "", server.name)


def under_way(own_jobs: Iterable[Manifest]) -> int:
    """Return how many Jobs have not ended."""
    return sum(attempts.end_of(job) is None for job in own_jobs)


def compile_(
    *, engine: Engine, server: TritonServer, attempt: int, claim: str, images: Images, image: str
) -> Manifest:
    """Return the Job that compiles an engine; `image` holds the release's TensorRT.

    The engine must be one that is compiled, and the server one with GPUs.
    """
    target, gpu, build = engine.target, server.spec.gpu, engine.spec.compilation
    if target is None or gpu is None or engine.spec.origin is None or build is None:
        raise ValueError(f"Engine {engine.name} is not compiled from another on a GPU of {server.name}")
    arguments = [
        "compile",
        f"--repository={podspec.REPOSITORY_MOUNT}",
        f"--engine={engine.name}",
        f"--key={engine.spec.key}",
        f"--from={engine.spec.origin}",
        f"--options={podspec.literal(to_json(build.compile_options))}",
        f"--target={podspec.literal(to_json(target))}",
        "--staging-uid=$(POD_UID)",
        "--termination-log=/dev/termination-log",
    ]
    pod = _pod(server, claim=claim, images=images) | {
        # Shared GPUs, whose product is called otherwise, are left out.
        "affinity": podspec.on_products(label_of(gpu.resource, "product"), [target.product]),
        "initContainers": [_copy(images)],
        "containers": [_compiler(arguments, server=server, gpu=gpu, image=image)],
    }
    labels = {**jobs.labels_of(engine), names.SERVER: server.name}
    job = jobs.of_attempt(engine, base=engine.name, attempt=attempt, labels=labels, pod=pod)
    if (queue := settings_of(server).queue_name) is not None:
        job["metadata"]["labels"][KUEUE_QUEUE] = queue
    return job


def _pod(server: TritonServer, *, claim: str, images: Images) -> Manifest:
    """Return a pod that writes to the claim of a repository, without containers."""
    builds = settings_of(server)
    own = tuple(reference.name for reference in server.spec.image_pull_secrets)
    secrets = tuple(dict.fromkeys([*own, *images.pull_secrets]))
    pod = podspec.base_pod(pull_secrets=secrets, placement=server.spec)
    if builds.tolerations is not None:
        pod["tolerations"] = [toleration.to_manifest() for toleration in builds.tolerations]
    if builds.priority_class_name is not None:
        pod["priorityClassName"] = builds.priority_class_name
    return pod | {
        # Counted from the pod's start: waiting for a free GPU is no part of it.
        "activeDeadlineSeconds": builds.timeout_seconds,
        "restartPolicy": "Never",
        "volumes": [
            podspec.claim_volume("repository", claim, read_only=False),
            podspec.scratch("code", size="64Mi"),
            podspec.scratch("tmp", size=_SCRATCH_SIZE),
        ],
    }


def _copy(images: Images) -> Manifest:
    """Return the container that copies our code to where TensorRT's image finds it."""
    return {
        "name": "code",
        "image": images.engine_builder,
        "imagePullPolicy": images.pull_policy,
        "args": ["export", _CODE],
        "securityContext": podspec.CONTAINER_SECURITY,
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
        "volumeMounts": [podspec.mount("code", _CODE, read_only=False)],
    }


def _compiler(arguments: list[str], *, server: TritonServer, gpu: Gpu, image: str) -> Manifest:
    policy = server.spec.image_pull_policy
    return {
        "name": "compiler",
        "image": image,
        **({"imagePullPolicy": policy.value} if policy is not None else {}),
        "command": ["python3", "-m", "engine_builder"],
        "args": arguments,
        "env": [
            {"name": "POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
            {"name": "PYTHONPATH", "value": _CODE},
            {"name": "PYTHONDONTWRITEBYTECODE", "value": "1"},
            {"name": "HOME", "value": "/tmp"},  # noqa: S108 - in the pod
        ],
        "securityContext": podspec.CONTAINER_SECURITY,
        "resources": podspec.with_gpus(settings_of(server).resources or _RESOURCES, gpu),
        "terminationMessagePolicy": "File",
        "volumeMounts": [
            podspec.mount("code", _CODE, read_only=True),
            podspec.mount("repository", podspec.REPOSITORY_MOUNT, read_only=False),
            podspec.mount("tmp", "/tmp", read_only=False),  # noqa: S108 - in the pod
        ],
    }
