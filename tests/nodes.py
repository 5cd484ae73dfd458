"""Nodes with GPUs as the API server has them: a_node("gpu-1", A10).

Labels are those that GPU feature discovery and the device plugin set for these products.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Any, Self

Object = dict[str, Any]

VENDOR = "nvidia.com/"


@dataclasses.dataclass(frozen=True)
class Gpu:
    """A product as its labels have it; memory is in MiB."""

    product: str
    family: str
    compute: tuple[int, int]
    memory: int


A10 = Gpu("NVIDIA-A10", "ampere", (8, 6), 23028)
A100 = Gpu("NVIDIA-A100-SXM4-80GB", "ampere", (8, 0), 81920)
L4 = Gpu("NVIDIA-L4", "ada-lovelace", (8, 9), 23034)
T4 = Gpu("Tesla-T4", "turing", (7, 5), 15360)
V100 = Gpu("Tesla-V100-SXM2-16GB", "volta", (7, 0), 16384)
GTX_1050_TI = Gpu("NVIDIA-GeForce-GTX-1050-Ti", "pascal", (6, 1), 4096)


class NodeBuilder:
    """A Node under construction; every `with_` returns a new one."""

    def __init__(self, body: Object) -> None:
        self._body = body

    def build(self) -> Object:
        """Return the Node as the API server has it."""
        return copy.deepcopy(self._body)

    def with_labels(self, **labels: str) -> Self:
        """Set labels of the vendor by what follows its domain, `.` as `__`: gpu__product="NVIDIA-A10"."""
        named = {VENDOR + name.replace("__", ".").replace("_", "-"): value for name, value in labels.items()}
        return self.labelled(named)

    def labelled(self, labels: dict[str, str]) -> Self:
        """Set labels by their whole names."""
        body = self.build()
        body["metadata"]["labels"] |= labels
        return type(self)(body)

    def without_labels(self, *beginnings: str) -> Self:
        """Take away the vendor's labels, or those that begin so."""
        body = self.build()
        begin = tuple(VENDOR + beginning for beginning in beginnings or ("",))
        labels = body["metadata"]["labels"]
        body["metadata"]["labels"] = {k: v for k, v in labels.items() if not k.startswith(begin)}
        return type(self)(body)

    def with_resources(self, **amounts: int | str) -> Self:
        """Say what pods may have of the vendor's resources: with_resources(gpu=4)."""
        body = self.build()
        named = {VENDOR + name: str(amount) for name, amount in amounts.items()}
        body["status"]["allocatable"] |= named
        body["status"]["capacity"] |= named
        return type(self)(body)

    def offering(self, resources: dict[str, int | str]) -> Self:
        """Replace all of the vendor's resources by these."""
        body = self.build()
        for part in ("allocatable", "capacity"):
            kept = {k: v for k, v in body["status"][part].items() if not k.startswith(VENDOR)}
            body["status"][part] = kept | {name: str(amount) for name, amount in resources.items()}
        return type(self)(body)

    def with_taint(self, key: str, value: str = "", effect: str = "NoSchedule") -> Self:
        """Put a taint on it."""
        body = self.build()
        taint = {"key": key, "effect": effect} | ({"value": value} if value else {})
        body["spec"].setdefault("taints", []).append(taint)
        return type(self)(body)

    def time_sliced(self, replicas: int) -> Self:
        """Let so many pods share each of its GPUs."""
        product = self._body["metadata"]["labels"][f"{VENDOR}gpu.product"]
        shared = self.with_labels(gpu__product=f"{product}-SHARED", gpu__replicas=str(replicas))
        return shared.with_labels(gpu__sharing_strategy="time-slicing").with_resources(gpu=2 * replicas)


def a_node(name: str, gpu: Gpu | None = None, *, count: int = 2, version: int = 1) -> NodeBuilder:
    """Return a node with so many GPUs of one product, or without."""
    general = {"cpu": "32", "memory": "131072Mi", "pods": "110", "ephemeral-storage": "104857600Ki"}
    general |= {"hugepages-2Mi": "0"}
    labels = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/os": "linux",
        "node.kubernetes.io/instance-type": "g5.8xlarge",
    }
    body: Object = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "uid": f"{name}-uid", "resourceVersion": str(version), "labels": labels},
        "spec": {"podCIDR": "10.1.0.0/24"},
        "status": {
            "capacity": dict(general),
            "allocatable": dict(general),
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
            "images": [{"names": [f"registry.example/image:{n}"], "sizeBytes": n} for n in range(50)],
        },
    }
    if gpu is None:
        return NodeBuilder(body)
    return (
        NodeBuilder(body)
        .labelled({"feature.node.kubernetes.io/pci-10de.present": "true"})
        .with_labels(
            gpu__present="true",
            gpu__product=gpu.product,
            gpu__family=gpu.family,
            gpu__memory=str(gpu.memory),
            gpu__count=str(count),
            gpu__replicas="1",
            gpu__sharing_strategy="none",
            gpu__compute__major=str(gpu.compute[0]),
            gpu__compute__minor=str(gpu.compute[1]),
            mig__capable="true" if gpu is A100 else "false",
        )
        .with_resources(gpu=count)
    )


def a_mig_single_node(name: str, profile: str = "1g.10gb", *, memory: int = 9728) -> NodeBuilder:
    """Return an A100 all of whose GPUs are cut into one profile, which is offered as nvidia.com/gpu."""
    return (
        a_node(name, A100)
        .with_labels(
            mig__strategy="single",
            gpu__product=f"{A100.product}-MIG-{profile}",
            gpu__memory=str(memory),
            gpu__count="14",
            gpu__multiprocessors="14",
            gpu__slices__gi="1",
            gpu__slices__ci="1",
        )
        .with_resources(gpu=14)
    )


def a_mig_mixed_node(name: str, profiles: dict[str, int] | None = None) -> NodeBuilder:
    """Return an A100 cut into several profiles (profile → memory), each a resource with labels of its own."""
    profiles = profiles or {"1g.10gb": 9728, "3g.40gb": 40192}
    found = a_node(name, A100).with_labels(mig__strategy="mixed", gpu__replicas="0")
    for profile, memory in profiles.items():
        of_profile = {
            f"{VENDOR}mig-{profile}.product": f"{A100.product}-MIG-{profile}",
            f"{VENDOR}mig-{profile}.memory": str(memory),
            f"{VENDOR}mig-{profile}.count": "2",
            f"{VENDOR}mig-{profile}.replicas": "1",
            f"{VENDOR}mig-{profile}.sharing-strategy": "none",
        }
        found = found.labelled(of_profile)
    return found.offering({f"{VENDOR}gpu": 0, **{f"{VENDOR}mig-{profile}": 2 for profile in profiles}})
