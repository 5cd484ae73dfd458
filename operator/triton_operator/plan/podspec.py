"""Parts that all our pods share: Pod Security "restricted", volumes, owner references."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from triton_operator.resources.common import Resource
from triton_operator.resources.gpu import Gpu
from triton_operator.resources.pods import PodSettings, ResourceRequirements

Manifest = dict[str, Any]

USER = 1000
"""User and group of all our containers; NVIDIA's Triton images have it as triton-server."""

REPOSITORY_MOUNT = "/repository"

CONTAINER_SECURITY: Manifest = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


@dataclasses.dataclass(frozen=True)
class Images:
    """The image that jobs and keeper run, as the chart names it."""

    engine_builder: str
    pull_policy: str = "IfNotPresent"
    pull_secrets: tuple[str, ...] = ()


def pod_security() -> Manifest:
    """Return the pod-level security context of all our pods."""
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def base_pod(*, pull_secrets: tuple[str, ...], placement: PodSettings) -> Manifest:
    """Return a pod spec without containers: security, placement, no service-account token."""
    spec: Manifest = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": pod_security(),
    }
    if pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in pull_secrets]
    if placement.node_selector:
        spec["nodeSelector"] = dict(placement.node_selector)
    if placement.tolerations:
        spec["tolerations"] = [toleration.to_manifest() for toleration in placement.tolerations]
    return spec


def resources(settings: PodSettings, *, cpu: str, memory: str) -> Manifest:
    """Return a container's resources: the spec's, or requests of our own."""
    if settings.resources is not None:
        return settings.resources.to_manifest()
    return {"requests": {"cpu": cpu, "memory": memory}}


def with_gpus(settings: ResourceRequirements | None, gpu: Gpu) -> Manifest:
    """Return a container's resources with its GPUs; requests of these follow from the limits."""
    said = settings.to_manifest() if settings is not None else {}
    return {**said, "limits": {**said.get("limits", {}), gpu.resource: str(gpu.count)}}


def on_products(label: str, products: Sequence[str], *, or_unlabelled: bool = False) -> Manifest:
    """Return the affinity that lets a pod run only on nodes whose label has one of these values."""
    terms: list[Manifest] = [{"key": label, "operator": "In", "values": list(products)}]
    if or_unlabelled:
        terms.append({"key": label, "operator": "DoesNotExist"})
    required = {"nodeSelectorTerms": [{"matchExpressions": [term]} for term in terms]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}


def literal(text: str) -> str:
    """Return a text of the user's for `args` or `env`, where Kubernetes replaces `$(NAME)`."""
    return text.replace("$", "$$")


def claim_volume(name: str, claim: str, *, read_only: bool) -> Manifest:
    """Return a volume of a PersistentVolumeClaim."""
    source: Manifest = {"claimName": claim}
    if read_only:
        source["readOnly"] = True
    return {"name": name, "persistentVolumeClaim": source}


def mount(name: str, path: str, *, read_only: bool) -> Manifest:
    """Return a volume mount."""
    return {"name": name, "mountPath": path, **({"readOnly": True} if read_only else {})}


def scratch(name: str, *, size: str, in_memory: bool = False) -> Manifest:
    """Return an emptyDir volume of limited size."""
    source: Manifest = {"sizeLimit": size}
    if in_memory:
        source["medium"] = "Memory"
    return {"name": name, "emptyDir": source}


def owned(owner: Resource) -> list[Manifest]:
    """Return the owner reference that makes a child go with its owner."""
    return [
        {
            "apiVersion": owner.KIND.api_version,
            "kind": owner.KIND.kind,
            "name": owner.metadata.name,
            "uid": owner.metadata.uid,
            "controller": True,
            "blockOwnerDeletion": False,
        }
    ]


def metadata(name: str, owner: Resource, labels: Mapping[str, str]) -> Manifest:
    """Return the metadata of a child of this owner."""
    return {
        "name": name,
        "namespace": owner.metadata.namespace,
        "labels": dict(labels),
        "ownerReferences": owned(owner),
    }
