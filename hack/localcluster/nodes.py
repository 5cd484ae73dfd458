"""The two nodes: names, addresses and the GPUs that they claim to have."""

from dataclasses import dataclass
from pathlib import Path

from localcluster.layout import Layout

GPUS_PER_NODE = 2
DRIVER = ("580", "65", "06")


@dataclass(frozen=True)
class Gpu:
    """A GPU product as GPU feature discovery labels it; memory is in MiB."""

    product: str
    family: str
    compute: tuple[int, int]
    memory: int


@dataclass(frozen=True)
class Node:
    """A node with a kubelet and a containerd of its own.

    Attributes:
        name: Name in the cluster.
        address: Its address on the bridge.
        pod_range: First and last address of its pods.
        health_port: Port of the kubelet's health endpoint on loopback.
        gpu: Product of its GPUs.
    """

    name: str
    address: str
    pod_range: tuple[str, str]
    health_port: int
    gpu: Gpu

    @property
    def cgroup(self) -> str:
        """Name of the cgroup of all its pods: with a shared one each kubelet ends the other's pods."""
        return f"trtop-{self.name}"

    def folder(self, layout: Layout) -> Path:
        """Return the folder of all its files."""
        return layout.state / "nodes" / self.name

    def containerd_socket(self, layout: Layout) -> Path:
        """Return the path of containerd's socket."""
        return self.folder(layout) / "containerd.sock"

    def labels(self) -> dict[str, str]:
        """Return the labels that GPU feature discovery would set."""
        major, minor, revision = DRIVER
        values = {
            "gpu.present": "true",
            "gpu.product": self.gpu.product,
            "gpu.family": self.gpu.family,
            "gpu.memory": str(self.gpu.memory),
            "gpu.count": str(GPUS_PER_NODE),
            "gpu.replicas": "1",
            "gpu.sharing-strategy": "none",
            "gpu.mode": "compute",
            "gpu.compute.major": str(self.gpu.compute[0]),
            "gpu.compute.minor": str(self.gpu.compute[1]),
            "mig.capable": "false",
            "cuda.driver-version.major": major,
            "cuda.driver-version.minor": minor,
            "cuda.driver-version.revision": revision,
            "cuda.driver-version.full": ".".join(DRIVER),
        }
        return {f"nvidia.com/{key}": value for key, value in values.items()}


NODES = (
    Node(
        name="node-a10",
        address="10.244.0.1",
        pod_range=("10.244.1.1", "10.244.1.254"),
        health_port=10248,
        gpu=Gpu("NVIDIA-A10", "ampere", (8, 6), 23028),
    ),
    Node(
        name="node-l4",
        address="10.244.0.2",
        pod_range=("10.244.2.1", "10.244.2.254"),
        health_port=10348,
        gpu=Gpu("NVIDIA-L4", "ada-lovelace", (8, 9), 23034),
    ),
)
