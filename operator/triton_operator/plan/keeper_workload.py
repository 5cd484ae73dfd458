"""What stands for a ModelRepository in the cluster: its claim, the keeper and the keeper's key."""

from __future__ import annotations

import base64

from triton_operator.plan import names, podspec
from triton_operator.plan.podspec import Images, Manifest
from triton_operator.resources.common import Resource
from triton_operator.resources.model_repository import ModelRepository

PORT = 8090
CONTAINER = "keeper"
KEY_FIELD = "key"


def claim(repository: ModelRepository) -> Manifest:
    """Return the claim that the operator makes; it has no owner, so it outlives the repository."""
    storage = repository.spec.storage
    if storage is None:
        raise ValueError("a repository with claimName has no claim of ours")
    spec: Manifest = {
        "accessModes": list(storage.access_modes),
        "resources": {"requests": {"storage": storage.size}},
    }
    if storage.class_name is not None:
        spec["storageClassName"] = storage.class_name
    name = repository.metadata.name
    metadata = podspec.metadata(
        repository.claim_name, repository, names.labels("repository", repository=name)
    )
    del metadata["ownerReferences"]
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}


def key_secret(owner: Resource, name: str, labels: dict[str, str], value: str) -> Manifest:
    """Return a Secret with one key; immutable, since another key has another name."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": podspec.metadata(name, owner, labels),
        "type": "Opaque",
        "immutable": True,
        "data": {KEY_FIELD: base64.b64encode(value.encode()).decode()},
    }


def deployment(
    repository: ModelRepository, *, secret: str, cluster_uid: str, claim_uid: str, images: Images
) -> Manifest:
    """Return the keeper's Deployment: one pod, and never two at once."""
    name = repository.metadata.name
    labels = names.labels("keeper", repository=name)
    settings = repository.spec.keeper
    pod = podspec.base_pod(pull_secrets=images.pull_secrets, placement=settings)
    container = _container(
        repository, secret=secret, cluster_uid=cluster_uid, claim_uid=claim_uid, images=images
    )
    pod |= {
        "terminationGracePeriodSeconds": 10,
        "containers": [container],
        "volumes": [
            podspec.claim_volume("repository", repository.claim_name, read_only=False),
            podspec.scratch("tmp", size="256Mi"),
        ],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": podspec.metadata(names.deployment_of_keeper(name), repository, labels),
        "spec": {
            "replicas": 1,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def _container(
    repository: ModelRepository, *, secret: str, cluster_uid: str, claim_uid: str, images: Images
) -> Manifest:
    probe = {"httpGet": {"path": "/readyz", "port": "api"}, "periodSeconds": 2, "failureThreshold": 2}
    return {
        "name": CONTAINER,
        "image": images.engine_builder,
        "imagePullPolicy": images.pull_policy,
        "args": [
            "keeper",
            f"--repository={podspec.REPOSITORY_MOUNT}",
            f"--listen=0.0.0.0:{PORT}",
            f"--cluster={cluster_uid}",
            f"--namespace={repository.metadata.namespace}",
            f"--claim-uid={claim_uid}",
        ],
        "env": [
            {"name": "KEEPER_KEY", "valueFrom": {"secretKeyRef": {"name": secret, "key": KEY_FIELD}}},
        ],
        "resources": podspec.resources(repository.spec.keeper, cpu="10m", memory="128Mi"),
        "ports": [{"name": "api", "containerPort": PORT}],
        "readinessProbe": probe,
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": "api"}, "periodSeconds": 10},
        "securityContext": podspec.CONTAINER_SECURITY,
        "volumeMounts": [
            podspec.mount("repository", podspec.REPOSITORY_MOUNT, read_only=False),
            podspec.mount("tmp", "/tmp", read_only=False),  # noqa: S108 - in the pod
        ],
    }
