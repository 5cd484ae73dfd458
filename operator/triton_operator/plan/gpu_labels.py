"""What the labels of GPU feature discovery say of a node's GPUs.

Their names: https://github.com/NVIDIA/k8s-device-plugin/blob/main/docs/gpu-feature-discovery/README.md
"""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Sequence

from triton_operator.plan.nodes import Node
from triton_operator.resources.gpu import COMPUTE_CAPABILITY_PATTERN, Gpu

SHARED = "-SHARED"
"""End of a product that several pods use at the same time."""
_RENAMED = ".shared"
"""End of a resource of shared GPUs, where the device plugin says so there and not in the product."""
_FULL_GPU = "nvidia.com/gpu"
_MIG = "nvidia.com/mig-"

CAPABILITY_LABELS = (f"{_FULL_GPU}.compute.major", f"{_FULL_GPU}.compute.minor")
"""A MIG profile has the capability of its GPU, and no label of its own for it."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """What one node's labels, and the spec where it speaks, say; empty or 0 for what nobody says."""

    node: str
    product: str
    compute_capability: str
    memory_mib: int
    is_shared: bool


def label_of(resource: str, name: str) -> str:
    """Return the label that says something of a resource's GPUs.

    Under MIG's mixed strategy every profile is a resource with labels of its own.
    """
    return f"{resource if resource.startswith(_MIG) else _FULL_GPU}.{name}"


def read(node: Node, gpu: Gpu) -> Reading:
    """Return what a node says of the GPUs that a server asks for."""

    def label(name: str) -> str:
        return node.labels.get(label_of(gpu.resource, name), "")

    major, minor = (node.labels.get(name, "") for name in CAPABILITY_LABELS)
    capability = f"{major}.{minor}" if re.match(COMPUTE_CAPABILITY_PATTERN, f"{major}.{minor}") else ""
    product = label("product")
    shared = label("sharing-strategy") not in ("", "none") or _number(label("replicas")) > 1
    return Reading(
        node=node.name,
        product=plain(product),
        compute_capability=gpu.compute_capability or capability,
        memory_mib=gpu.memory_mib or _number(label("memory")),
        is_shared=shared or product.endswith(SHARED) or gpu.resource.endswith(_RENAMED),
    )


def plain(product: str) -> str:
    """Return a product without word of how it is shared: the hardware is the same."""
    return product.removesuffix(SHARED)


def counted(readings: Sequence[Reading]) -> str:
    """Return the products with the number of nodes that have them."""
    counts = collections.Counter(reading.product for reading in readings)
    return ", ".join(f"{name} ({n} {'node' if n == 1 else 'nodes'})" for name, n in sorted(counts.items()))


def _number(text: str) -> int:
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else 0
