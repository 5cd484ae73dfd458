"""Nodes with GPUs of the local cluster: servers on them, what was built for them, others who take them."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import struct
from typing import TYPE_CHECKING, Any

from tests.e2e.cluster import kubectl

from engine_builder.compilers import plan_header
from engine_builder.compilers.plan_header import PlanHeader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.builders import ServerBuilder
    from tests.e2e.stage import Stage

Object = dict[str, Any]

GPU = "nvidia.com/gpu"
"""The resource, and the key of the taint that keeps others off nodes which have it."""
PRODUCT_LABEL = "nvidia.com/gpu.product"
SMALL = {"requests": {"cpu": "50m", "memory": "256Mi"}}
"""Of a compile Job: both nodes of the cluster share the cores of one host."""
_CAPABILITIES = {"8.6": 1 << 2, "8.9": 1 << 3}
"""Bits by which a plan of TensorRT for RTX says, at this offset, for which GPUs it was built."""
_CAPABILITIES_AT = 32


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of GPU, and the server and the node that have it."""

    server: str
    node: str
    product: str
    capability: str


A10 = Kind("a10", "node-a10", "NVIDIA-A10", "8.6")
L4 = Kind("l4", "node-l4", "NVIDIA-L4", "8.9")
KINDS = (A10, L4)


def a_gpu_server(stage: Stage, kind: Kind) -> ServerBuilder:
    """Return a server of one pod on a kind of GPU, as `examples/tensorrt` has it."""
    return stage.a_server(kind.server).with_spec(
        image=stage.cluster.images["triton-tensorrt-double"],
        compilerImage=stage.cluster.images["tensorrt-rtx"],
        gpu={},
        nodeSelector={PRODUCT_LABEL: kind.product},
        tolerations=[{"key": GPU, "operator": "Exists"}],
        builds={"resources": SMALL},
    )


@dataclasses.dataclass(frozen=True)
class Plan:
    """A plan on the volume."""

    header: PlanHeader
    capabilities: int
    """The GPUs that it was built for, as bits."""
    size: int
    report: Object

    def is_for(self, kind: Kind) -> bool:
        """Tell whether it was built for the capability of these GPUs, and no other."""
        return self.capabilities == _CAPABILITIES[kind.capability]


def plan_of(stage: Stage, engine: str) -> Plan:
    """Read what there is to know of a compiled engine, through the keeper."""
    path = f"/repository/store/{engine}"
    script = f"head -c {plan_header.SIZE} {path}/model.plan | base64 -w0; echo; stat -c %s {path}/model.plan"
    keeper = ("-n", stage.namespace, "exec", "deployment/keeper-default", "--", "sh", "-c")
    encoded, size = kubectl(*keeper, script).stdout.split()
    beginning = base64.b64decode(encoded)
    (capabilities,) = struct.unpack_from("<Q", beginning, _CAPABILITIES_AT)
    report = json.loads(kubectl(*keeper, f"cat {path}/report.json").stdout)
    return Plan(plan_header.read(beginning), capabilities, int(size), report)


@contextlib.contextmanager
def taken(stage: Stage, kind: Kind) -> Iterator[None]:
    """Have somebody else hold one of the GPUs while the context is open."""
    pod = stage.a_pod("tenant")
    pod["spec"]["nodeSelector"] = {PRODUCT_LABEL: kind.product}
    pod["spec"]["containers"][0]["resources"] = {"limits": {GPU: "1"}}
    stage.apply(pod)
    try:
        kubectl("-n", stage.namespace, "wait", "pod/tenant", "--for=condition=Ready", "--timeout=90s")
        yield
    finally:
        stage.kube.delete("Pod", "tenant", grace_seconds=0)
