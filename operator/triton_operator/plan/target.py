"""A server's target: the GPU that its pods run on, from the labels of nodes or from the spec.

What is known once is kept: labels that vanish, as while a driver restarts or a pool has scaled to
zero, change nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from engine_builder.contract import Target
from triton_operator.plan.gpu_labels import CAPABILITY_LABELS, Reading, counted, label_of, plain, read
from triton_operator.plan.nodes import Node
from triton_operator.plan.outcome import Outcome, Stalled, Waiting
from triton_operator.resources.gpu import CPU, Gpu, TargetStatus
from triton_operator.resources.triton_server import TritonServer, TritonServerSpec

LOWEST = (7, 5)
"""Lowest compute capability of TensorRT 10.5 and later."""
LOWEST_BEFORE = (7, 0)
TENSORRT_10_5 = "24.10"
"""First Triton release with TensorRT 10.5: the one release that must be known by its number."""

_BY_SPEC = "as spec.gpu says"
_BY_LABELS = "as the labels of its nodes say"
_AS_BEFORE = "as the labels of its nodes said"
_MOST_NAMES = 5


@dataclasses.dataclass(frozen=True)
class Resolution:
    """The GPU that a server is for.

    `origin` tells people how it is known, `node` is one that has it. With a `problem` its pods go on
    as they are. `is_shared` says that nowhere a build would have a GPU for itself.
    """

    target: Target
    origin: str
    node: str = ""
    is_shared: bool = False
    problem: Stalled | None = None

    def status(self, gpu: Gpu) -> TargetStatus:
        """Return what the server's status keeps of it."""
        return TargetStatus(
            product=self.target.product,
            compute_capability=self.target.compute_capability,
            memory_mib=self.target.memory_mib,
            resource=gpu.resource,
        )


def cpu() -> TargetStatus:
    """Return the target of a server without GPUs."""
    return TargetStatus(product=CPU)


def resolve(
    server: TritonServer, gpu: Gpu, nodes: Iterable[Node] | None, *, known: TargetStatus | None
) -> Resolution | Outcome:
    """Return the target of a server with GPUs, or why there is none.

    `nodes` of None says that they can't be read, `known` is the target that it had until now.
    """
    found = _resolve(server, gpu, nodes, known=_still_valid(known, gpu))
    refusal = _unsupported(server, found) if isinstance(found, Resolution) else None
    return found if refusal is None else refusal


def no_build(server: TritonServer, found: Resolution) -> Stalled | None:
    """Return why nothing can be compiled on a server's GPUs.

    TensorRT measures while it compiles, and fails when another process has taken the memory.
    """
    if not found.is_shared:
        return None
    return Stalled(
        "SharedGpu",
        f"every {found.target.product} that TritonServer {server.name} may use is shared between pods, and a "
        f"build wants the GPU alone: let nodeSelector and tolerations reach a node whose GPUs aren't shared",
    )


def describe(target: Target) -> str:
    """Return a target for people."""
    return f"{target.product} ({target.compute_capability}, {target.memory_mib} MiB)"


def is_stated(gpu: Gpu) -> bool:
    """Tell whether the spec says everything, so that no label is needed."""
    return bool(gpu.product and gpu.compute_capability and gpu.memory_mib)


def _resolve(
    server: TritonServer, gpu: Gpu, nodes: Iterable[Node] | None, *, known: Target | None
) -> Resolution | Outcome:
    candidates = _candidates(server.spec, gpu, tuple(nodes or ()))
    readings = () if isinstance(candidates, Waiting) else tuple(read(node, gpu) for node in candidates)
    found: Resolution | Outcome
    if is_stated(gpu):
        found = Resolution(Target(plain(gpu.product), gpu.compute_capability, gpu.memory_mib), _BY_SPEC)
    elif known is not None:
        found = _against_known(known, gpu, readings)
    elif nodes is None:
        found = _unreadable(gpu)
    else:
        found = candidates if isinstance(candidates, Waiting) else _from_labels(gpu, readings)
    return _seen_on(found, readings) if isinstance(found, Resolution) else found


def _still_valid(known: TargetStatus | None, gpu: Gpu) -> Target | None:
    """Return the target that a server had, unless the spec speaks against it now."""
    target = known.target if known is not None else None
    if known is None or target is None or known.resource != gpu.resource:
        return None
    if gpu.product and plain(gpu.product) != target.product:
        return None
    if gpu.compute_capability and gpu.compute_capability != target.compute_capability:
        return None
    return dataclasses.replace(target, memory_mib=gpu.memory_mib or target.memory_mib)


def _seen_on(found: Resolution, readings: Sequence[Reading]) -> Resolution:
    """Add where the target was seen, and whether it is shared on all of these nodes."""
    own = [reading for reading in readings if reading.product in ("", found.target.product)]
    own.sort(key=lambda reading: not reading.product)  # one that says so is the better witness
    shared = bool(own) and all(reading.is_shared for reading in own)
    return dataclasses.replace(found, node=own[0].node if own else "", is_shared=shared)


# -- which nodes -----------------------------------------------------------------------------------


def _candidates(spec: TritonServerSpec, gpu: Gpu, nodes: Sequence[Node]) -> tuple[Node, ...] | Waiting:
    """Return the nodes that could run a pod of the server, were nothing else on them, or why none could."""
    with_gpu = tuple(node for node in nodes if node.has_gpu)
    if not with_gpu:
        return _none("the cluster has no node with a GPU now")
    selected = tuple(node for node in with_gpu if spec.node_selector.items() <= node.labels.items())
    if not selected:
        wanted = ", ".join(f"{key}={value}" for key, value in sorted(spec.node_selector.items()))
        return _none(f"no node with a GPU ({_names(with_gpu)}) has the labels of spec.nodeSelector: {wanted}")
    tolerated = tuple(node for node in selected if node.hindrance(spec.tolerations) is None)
    if not tolerated:
        first = selected[0]
        return _none(
            f"no selected node ({_names(selected)}) takes the server's pods: {first.name} has the taint "
            f"{first.hindrance(spec.tolerations)}, which spec.tolerations doesn't tolerate"
        )
    offering = tuple(node for node in tolerated if node.resources.get(gpu.resource, 0) >= gpu.count)
    if not offering:
        offers = sorted({f"{n} {name}" for node in tolerated for name, n in node.resources.items()})
        return _none(
            f"no selected node ({_names(tolerated)}) offers {gpu.count} {gpu.resource}; they offer "
            f"{', '.join(offers) or 'no GPU now: see whether the device plugin runs there'}"
        )
    return offering


def _none(message: str) -> Waiting:
    return Waiting("NoGpuNode", message)


def _names(nodes: Sequence[Node]) -> str:
    more = len(nodes) - _MOST_NAMES
    found = ", ".join(node.name for node in nodes[:_MOST_NAMES])
    return f"{found} and {more} more" if more > 0 else found


# -- which GPU -------------------------------------------------------------------------------------


def _against_known(known: Target, gpu: Gpu, readings: Sequence[Reading]) -> Resolution:
    """Return the target that a server had, and what is wrong if its nodes have become others."""
    kept = Resolution(known, _AS_BEFORE)
    named = [reading for reading in readings if reading.product and _is_wanted(reading, gpu)]
    if not named or any(_is_same(reading, known) for reading in named):
        return kept
    now = named[0].product
    message = (
        f"the server is for {describe(known)}, and the nodes that its pods may run on have {counted(named)} "
        f"now; its pods stay as they are: select nodes with {known.product}, or move the server by "
        f"spec.gpu.product: {now}, or make another TritonServer for {now}"
    )
    return dataclasses.replace(kept, problem=Stalled("TargetChanged", message))


def _from_labels(gpu: Gpu, readings: Sequence[Reading]) -> Resolution | Outcome:
    labelled = [reading for reading in readings if reading.product]
    if not labelled:
        return _unlabelled(gpu, readings[0])
    named = [reading for reading in labelled if _is_wanted(reading, gpu)]
    if not named:
        return _none(f"no selected node has {gpu.product} of spec.gpu.product; they have {counted(labelled)}")
    capabilities = sorted({reading.compute_capability for reading in named} - {""})
    if len({reading.product for reading in named}) > 1:
        return _ambiguous(gpu, named)
    if len(capabilities) > 1:
        return _contradictory(named[0], capabilities)
    memory = min((each.memory_mib for each in named if each.memory_mib), default=0)  # nodes differ a little
    if not capabilities or not memory:
        return _incomplete(gpu, named[0])
    return Resolution(Target(named[0].product, capabilities[0], memory), _BY_LABELS)


def _is_wanted(reading: Reading, gpu: Gpu) -> bool:
    return not gpu.product or reading.product == plain(gpu.product)


def _is_same(reading: Reading, known: Target) -> bool:
    return reading.product == known.product and reading.compute_capability in ("", known.compute_capability)


# -- what a user must do ---------------------------------------------------------------------------


def _unlabelled(gpu: Gpu, reading: Reading) -> Stalled:
    return Stalled(
        "IncompleteLabels",
        f"node {reading.node} lacks the label {label_of(gpu.resource, 'product')} of GPU feature discovery: "
        f"install that, or say by spec.gpu.product, computeCapability and memoryMiB what the GPU is",
    )


def _incomplete(gpu: Gpu, reading: Reading) -> Stalled:
    lacks = {}
    if not reading.compute_capability:
        lacks[" and ".join(CAPABILITY_LABELS)] = "spec.gpu.computeCapability"
    if not reading.memory_mib:
        lacks[label_of(gpu.resource, "memory")] = "spec.gpu.memoryMiB"
    return Stalled(
        "IncompleteLabels",
        f"node {reading.node} with {reading.product} lacks the label {' and '.join(lacks)} of GPU feature "
        f"discovery: set it, or {' and '.join(lacks.values())}",
    )


def _ambiguous(gpu: Gpu, named: Sequence[Reading]) -> Stalled:
    product = named[0].product
    message = (
        f"the server's pods may run on {counted(named)}, and a server is for one GPU: choose by "
        f"spec.gpu.product: {product}, or by spec.nodeSelector with {label_of(gpu.resource, 'product')}: "
        f"{product}, and make another TritonServer for each of the others"
    )
    return Stalled("AmbiguousTarget", message)


def _contradictory(reading: Reading, capabilities: Sequence[str]) -> Stalled:
    message = (
        f"nodes with {reading.product} say different compute capabilities ({', '.join(capabilities)}): "
        f"correct their labels, or set spec.gpu.computeCapability"
    )
    return Stalled("AmbiguousTarget", message)


def _unreadable(gpu: Gpu) -> Stalled:
    said = {
        "spec.gpu.product": gpu.product,
        "spec.gpu.computeCapability": gpu.compute_capability,
        "spec.gpu.memoryMiB": gpu.memory_mib,
    }
    missing = " and ".join(name for name, value in said.items() if not value)
    return Stalled(
        "NodesUnreadable",
        f"the operator has no right to read nodes, so it can't tell the GPU: set {missing}; or grant its "
        f"service account list and watch on nodes in the cluster, and restart it",
    )


def _unsupported(server: TritonServer, found: Resolution) -> Stalled | None:
    """Return why TensorRT of the server's release can't run on a target.

    A release that isn't known yet gets the benefit of the doubt.
    """
    target, release = found.target, server.release
    lowest = LOWEST if release is not None and release >= TENSORRT_10_5 else LOWEST_BEFORE
    if tuple(int(part) for part in target.compute_capability.split(".")) >= lowest:
        return None
    where = f" of node {found.node}" if found.node else ""
    return Stalled(
        "UnsupportedGpu",
        f"{target.product}{where} has compute capability {target.compute_capability}, {found.origin}; "
        f"TensorRT of release {release or 'unknown'} needs {'.'.join(map(str, lowest))} or later: let "
        f"spec.nodeSelector choose nodes with another GPU",
    )
