from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import a_server
from tests.nodes import (
    A10,
    A100,
    GTX_1050_TI,
    L4,
    T4,
    V100,
    Gpu,
    NodeBuilder,
    a_mig_mixed_node,
    a_mig_single_node,
    a_node,
)
from tests.observed import server

from engine_builder.contract import Target
from triton_operator.plan import nodes, target
from triton_operator.plan.nodes import Node
from triton_operator.plan.outcome import Outcome, Stalled, Waiting
from triton_operator.plan.target import Resolution
from triton_operator.resources.gpu import TargetStatus
from triton_operator.resources.triton_server import TritonServer

TARGET_A10 = Target("NVIDIA-A10", "8.6", 23028)
STATED = {"product": "NVIDIA-A10", "computeCapability": "8.6", "memoryMiB": 23028}


def a_gpu_server(release: str = "26.07", *, known: TargetStatus | None = None, **spec: Any) -> TritonServer:
    builder = a_server("a10").with_spec(image=f"tritonserver:{release}-py3", **({"gpu": {}} | spec))
    return server(builder, status={"target": known.to_manifest()} if known else None)


def resolve(found: TritonServer, *cluster: NodeBuilder, readable: bool = True) -> Resolution | Outcome:
    """Resolve as the operator does: from what it keeps of nodes, and with what the status remembers."""
    assert found.spec.gpu is not None
    seen = [Node.parse(nodes.kept(node.build())) for node in cluster]
    return target.resolve(found, found.spec.gpu, seen if readable else None, known=found.status.target)


def resolved(found: TritonServer, *cluster: NodeBuilder, readable: bool = True) -> Resolution:
    outcome = resolve(found, *cluster, readable=readable)
    assert isinstance(outcome, Resolution), outcome
    return outcome


def refused(
    found: TritonServer,
    *cluster: NodeBuilder,
    reason: str,
    kind: type[Outcome] = Stalled,
    readable: bool = True,
) -> str:
    outcome = resolve(found, *cluster, readable=readable)
    assert isinstance(outcome, kind), outcome
    assert outcome.reason == reason
    return outcome.message


def remembered(found: TritonServer, *cluster: NodeBuilder) -> TargetStatus:
    assert found.spec.gpu is not None
    return resolved(found, *cluster).status(found.spec.gpu)


# -- from labels -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("node", "resource", "expected"),
    [
        (a_node("n", A10), "nvidia.com/gpu", TARGET_A10),
        (a_node("n", L4), "nvidia.com/gpu", Target("NVIDIA-L4", "8.9", 23034)),
        (a_node("n", T4), "nvidia.com/gpu", Target("Tesla-T4", "7.5", 15360)),
        (a_node("n", A100), "nvidia.com/gpu", Target("NVIDIA-A100-SXM4-80GB", "8.0", 81920)),
        (
            a_mig_single_node("n"),
            "nvidia.com/gpu",
            Target("NVIDIA-A100-SXM4-80GB-MIG-1g.10gb", "8.0", 9728),
        ),
        (
            a_mig_mixed_node("n"),
            "nvidia.com/mig-1g.10gb",
            Target("NVIDIA-A100-SXM4-80GB-MIG-1g.10gb", "8.0", 9728),
        ),
        (
            a_mig_mixed_node("n"),
            "nvidia.com/mig-3g.40gb",
            Target("NVIDIA-A100-SXM4-80GB-MIG-3g.40gb", "8.0", 40192),
        ),
        (a_node("n", A10).time_sliced(4), "nvidia.com/gpu", TARGET_A10),
    ],
)
def test_labels_tell_the_target(node: NodeBuilder, resource: str, expected: Target) -> None:
    found = resolved(a_gpu_server(gpu={"resource": resource}), node, a_node("cpu-1"))
    assert (found.target, found.problem, found.node) == (expected, None, "n")
    assert "labels of its nodes say" in found.origin


def test_several_nodes_of_one_product_are_one_target_with_the_least_memory() -> None:
    other = a_node("gpu-2", A10).with_labels(gpu__memory="22731")
    assert resolved(a_gpu_server(), a_node("gpu-1", A10), other).target == Target("NVIDIA-A10", "8.6", 22731)


def test_only_nodes_that_pods_may_run_on_count() -> None:
    pool = {"pool": "vision"}
    cluster = (
        a_node("gpu-1", A10).labelled(pool),
        a_node("gpu-2", L4),
        a_node("gpu-3", T4).labelled(pool).with_taint("dedicated", "batch"),
        a_node("gpu-4", A100, count=0).labelled(pool),
        a_mig_mixed_node("gpu-5").labelled(pool),
    )
    assert resolved(a_gpu_server(nodeSelector=pool), *cluster).target == TARGET_A10


def test_a_pod_that_wants_two_gpus_needs_a_node_that_has_two() -> None:
    found = a_gpu_server(gpu={"count": 2})
    cluster = (a_node("gpu-1", A10, count=1), a_node("gpu-2", L4, count=2))
    assert resolved(found, *cluster).target.product == "NVIDIA-L4"
    message = refused(found, cluster[0], reason="NoGpuNode", kind=Waiting)
    assert "gpu-1" in message
    assert "offers 2 nvidia.com/gpu; they offer 1 nvidia.com/gpu" in message


def test_what_some_nodes_leave_out_others_may_say() -> None:
    silent = a_node("gpu-1", A10).without_labels("gpu.compute", "gpu.memory")
    assert resolved(a_gpu_server(), silent, a_node("gpu-2", A10)).target == TARGET_A10


# -- from the spec ---------------------------------------------------------------------------------


@pytest.mark.parametrize("readable", [True, False])
def test_a_spec_that_says_everything_needs_no_node(*, readable: bool) -> None:
    found = resolved(a_gpu_server(gpu=STATED), readable=readable)
    assert (found.target, found.origin) == (TARGET_A10, "as spec.gpu says")


def test_the_spec_adds_what_labels_leave_out_and_corrects_them() -> None:
    node = a_node("gpu-1", A10).without_labels("gpu.compute")
    assert resolved(a_gpu_server(gpu={"computeCapability": "8.6"}), node).target == TARGET_A10
    corrected = resolved(a_gpu_server(gpu={"memoryMiB": 12000}), a_node("gpu-1", A10))
    assert corrected.target.memory_mib == 12000


@pytest.mark.parametrize("product", ["NVIDIA-A10", "NVIDIA-A10-SHARED"])
def test_the_spec_chooses_among_products(product: str) -> None:
    found = a_gpu_server(gpu={"product": product})
    assert resolved(found, a_node("gpu-1", L4), a_node("gpu-2", A10)).target == TARGET_A10
    message = refused(found, a_node("gpu-1", L4), reason="NoGpuNode", kind=Waiting)
    assert "NVIDIA-L4 (1 node)" in message


# -- no target -------------------------------------------------------------------------------------


def test_a_cluster_without_gpus_is_waited_for() -> None:
    message = refused(a_gpu_server(), a_node("cpu-1"), reason="NoGpuNode", kind=Waiting)
    assert message == "the cluster has no node with a GPU now"


def test_a_selector_that_finds_nothing_is_named() -> None:
    found = a_gpu_server(nodeSelector={"pool": "vision", "zone": "a"})
    message = refused(found, *(a_node(f"gpu-{n}", A10) for n in range(7)), reason="NoGpuNode", kind=Waiting)
    assert "spec.nodeSelector: pool=vision, zone=a" in message
    assert "gpu-4 and 2 more" in message


def test_a_taint_that_is_not_tolerated_is_named() -> None:
    node = a_node("gpu-1", A10).with_taint("nvidia.com/gpu", "present")
    message = refused(a_gpu_server(), node, reason="NoGpuNode", kind=Waiting)
    assert "gpu-1 has the taint nvidia.com/gpu=present:NoSchedule" in message
    tolerant = a_gpu_server(tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists"}])
    assert resolved(tolerant, node).target == TARGET_A10


def test_a_resource_that_no_node_has_is_named_with_those_that_they_have() -> None:
    found = a_gpu_server(gpu={"resource": "nvidia.com/mig-1g.10gb"})
    message = refused(found, a_node("gpu-1", A100), reason="NoGpuNode", kind=Waiting)
    assert "offers 1 nvidia.com/mig-1g.10gb; they offer 2 nvidia.com/gpu" in message
    down = refused(a_gpu_server(), a_node("gpu-1", A10, count=0), reason="NoGpuNode", kind=Waiting)
    assert "device plugin" in down


def test_several_products_are_ambiguous_and_counted() -> None:
    cluster = (a_node("gpu-1", A10), a_node("gpu-2", L4), a_node("gpu-3", A10))
    message = refused(a_gpu_server(), *cluster, reason="AmbiguousTarget")
    assert "NVIDIA-A10 (2 nodes), NVIDIA-L4 (1 node)" in message
    assert "spec.gpu.product: NVIDIA-A10" in message
    assert "nvidia.com/gpu.product: NVIDIA-A10" in message
    assert "another TritonServer" in message


def test_mig_profiles_of_one_resource_are_told_apart_by_their_own_label() -> None:
    h100 = a_mig_mixed_node("mig-2").labelled({"nvidia.com/mig-1g.10gb.product": "NVIDIA-H100-MIG-1g.10gb"})
    found = a_gpu_server(gpu={"resource": "nvidia.com/mig-1g.10gb"})
    message = refused(found, a_mig_mixed_node("mig-1"), h100, reason="AmbiguousTarget")
    assert "nvidia.com/mig-1g.10gb.product: NVIDIA-A100-SXM4-80GB-MIG-1g.10gb" in message


def test_labels_that_contradict_each_other_are_ambiguous() -> None:
    wrong = a_node("gpu-2", A10).with_labels(gpu__compute__minor="9")
    message = refused(a_gpu_server(), a_node("gpu-1", A10), wrong, reason="AmbiguousTarget")
    assert "8.6, 8.9" in message
    assert "spec.gpu.computeCapability" in message


def test_a_node_without_labels_is_named_with_what_spec_gpu_can_say() -> None:
    message = refused(a_gpu_server(), a_node("gpu-1", A10).without_labels(), reason="IncompleteLabels")
    assert "node gpu-1 lacks the label nvidia.com/gpu.product" in message
    assert "spec.gpu.product, computeCapability and memoryMiB" in message


@pytest.mark.parametrize(
    ("lacking", "said"),
    [
        (("gpu.compute",), ("nvidia.com/gpu.compute.major", "set it, or spec.gpu.computeCapability")),
        (("gpu.memory",), ("nvidia.com/gpu.memory", "set it, or spec.gpu.memoryMiB")),
        (("gpu.memory", "gpu.compute"), ("spec.gpu.computeCapability and spec.gpu.memoryMiB",)),
    ],
)
def test_labels_that_are_missing_are_named(lacking: tuple[str, ...], said: tuple[str, ...]) -> None:
    node = a_node("gpu-1", A10).without_labels(*lacking)
    message = refused(a_gpu_server(), node, reason="IncompleteLabels")
    assert all(text in message for text in ("gpu-1", *said)), message


def test_an_operator_that_may_not_read_nodes_says_what_to_set() -> None:
    message = refused(a_gpu_server(), readable=False, reason="NodesUnreadable")
    assert "spec.gpu.product and spec.gpu.computeCapability and spec.gpu.memoryMiB" in message
    partly = a_gpu_server(gpu={"product": "NVIDIA-A10", "computeCapability": "8.6"})
    assert "set spec.gpu.memoryMiB;" in refused(partly, readable=False, reason="NodesUnreadable")


# -- what TensorRT can't run on --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gpu", "release", "supported"),
    [
        (GTX_1050_TI, "24.08", False),
        (GTX_1050_TI, "26.07", False),
        (V100, "24.09", True),
        (V100, "24.10", False),
        (T4, "24.08", True),
        (T4, "26.07", True),
        (L4, "26.07", True),
    ],
)
def test_gpus_below_the_lowest_capability_are_refused(gpu: Gpu, release: str, *, supported: bool) -> None:
    found, node = a_gpu_server(release), a_node("old-1", gpu)
    if supported:
        assert resolved(found, node).target.product == gpu.product
        return
    message = refused(found, node, reason="UnsupportedGpu")
    assert f"{gpu.product} of node old-1 has compute capability {gpu.compute[0]}.{gpu.compute[1]}" in message
    assert release in message


def test_ten_is_more_than_seven() -> None:
    blackwell = {"product": "NVIDIA-B200", "computeCapability": "10.0", "memoryMiB": 183359}
    assert resolved(a_gpu_server(gpu=blackwell)).target.compute_capability == "10.0"


def test_what_the_spec_states_is_refused_as_well_and_a_target_that_an_upgrade_gives_up() -> None:
    stated = {"product": "Tesla-V100", "computeCapability": "7.0", "memoryMiB": 16384}
    assert "as spec.gpu says" in refused(a_gpu_server(gpu=stated), reason="UnsupportedGpu")
    known = remembered(a_gpu_server("24.09"), a_node("old-1", V100))
    refused(a_gpu_server("24.10", known=known), a_node("old-1", V100), reason="UnsupportedGpu")


# -- once it is known ------------------------------------------------------------------------------

KNOWN_A10 = TargetStatus(
    product="NVIDIA-A10", compute_capability="8.6", memory_mib=23028, resource="nvidia.com/gpu"
)


@pytest.mark.parametrize(
    "cluster",
    [
        (),
        (a_node("gpu-1", A10).without_labels(),),
        (a_node("gpu-1", A10).without_labels("gpu.compute", "gpu.memory"),),
        (a_node("gpu-1", A10).offering({}),),
        (a_node("gpu-1", A10).with_labels(gpu__memory="22731"),),
        (a_node("gpu-1", A10).with_taint("dedicated", "batch"),),
        (a_node("gpu-1", A10), a_node("gpu-2", L4)),
        (a_node("gpu-1", A10).time_sliced(2),),
    ],
)
def test_a_target_that_was_known_stays(cluster: tuple[NodeBuilder, ...]) -> None:
    found = resolved(a_gpu_server(known=KNOWN_A10), *cluster)
    assert (found.target, found.problem) == (TARGET_A10, None)


def test_a_target_that_was_known_stays_though_nodes_cannot_be_read() -> None:
    assert resolved(a_gpu_server(known=KNOWN_A10), readable=False).target == TARGET_A10


def test_nodes_that_have_become_others_stall_the_server_and_its_target_stays() -> None:
    found = resolved(a_gpu_server(known=KNOWN_A10), a_node("gpu-1", L4))
    assert found.target == TARGET_A10
    assert found.problem is not None
    assert found.problem.reason == "TargetChanged"
    for text in ("NVIDIA-A10 (8.6, 23028 MiB)", "NVIDIA-L4 (1 node)", "spec.gpu.product: NVIDIA-L4"):
        assert text in found.problem.message


def test_the_spec_moves_a_server_to_another_gpu() -> None:
    moved = a_gpu_server(known=KNOWN_A10, gpu={"product": "NVIDIA-L4"})
    assert resolved(moved, a_node("gpu-1", L4)).target == Target("NVIDIA-L4", "8.9", 23034)
    refused(moved, a_node("gpu-1", A10), reason="NoGpuNode", kind=Waiting)
    profile = a_gpu_server(known=KNOWN_A10, gpu={"resource": "nvidia.com/mig-1g.10gb"})
    assert resolved(profile, a_mig_mixed_node("mig-1")).target.memory_mib == 9728


def test_the_spec_corrects_what_was_known() -> None:
    found = a_gpu_server(known=KNOWN_A10, gpu={"memoryMiB": 12000})
    assert resolved(found).target == Target("NVIDIA-A10", "8.6", 12000)
    other = a_gpu_server(known=KNOWN_A10, gpu={"computeCapability": "8.9"})
    refused(other, reason="NoGpuNode", kind=Waiting)


def test_a_server_that_had_no_gpu_has_no_target_to_keep() -> None:
    refused(a_gpu_server(known=target.cpu()), reason="NoGpuNode", kind=Waiting)


# -- shared GPUs -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("node", "gpu"),
    [
        (a_node("gpu-1", A10).time_sliced(4), {}),
        (a_node("gpu-1", A10).with_labels(gpu__sharing_strategy="mps", gpu__replicas="4"), {}),
        (
            a_node("gpu-1", A10).with_labels(gpu__replicas="4").offering({"nvidia.com/gpu.shared": 8}),
            {"resource": "nvidia.com/gpu.shared"},
        ),
    ],
)
def test_shared_gpus_serve_and_are_refused_for_builds(node: NodeBuilder, gpu: dict[str, str]) -> None:
    found = a_gpu_server(gpu=gpu)
    shared = resolved(found, node)
    assert shared.target == TARGET_A10
    refusal = target.no_build(found, shared)
    assert refusal is not None
    assert refusal.reason == "SharedGpu"
    assert "NVIDIA-A10" in refusal.message


def test_one_node_with_unshared_gpus_is_enough_for_builds() -> None:
    found = a_gpu_server()
    alone = resolved(found, a_node("gpu-1", A10).time_sliced(4), a_node("gpu-2", A10))
    assert target.no_build(found, alone) is None
    assert target.no_build(found, resolved(a_gpu_server(gpu=STATED))) is None
    mig = a_gpu_server(gpu={"resource": "nvidia.com/mig-1g.10gb"})
    assert target.no_build(mig, resolved(mig, a_mig_mixed_node("mig-1"))) is None


# -- properties ------------------------------------------------------------------------------------

gpus = st.sampled_from([A10, A100, L4, T4, None])


@st.composite
def clusters(draw: st.DrawFn) -> list[NodeBuilder]:
    found = []
    for index in range(draw(st.integers(0, 5))):
        node = a_node(f"node-{index}", draw(gpus), count=draw(st.integers(0, 2)))
        if draw(st.booleans()):
            node = node.labelled({"pool": draw(st.sampled_from(["vision", "text"]))})
        if draw(st.booleans()):
            node = node.with_taint("dedicated", draw(st.sampled_from(["vision", "text"])))
        if draw(st.booleans()):
            node = node.without_labels(*draw(st.sampled_from([(), ("gpu.compute",), ("gpu.memory",)])))
        found.append(node)
    return found


specs = st.fixed_dictionaries(
    {"gpu": st.sampled_from([{}, {"product": "NVIDIA-A10"}, {"count": 2}, STATED])},
    optional={
        "nodeSelector": st.just({"pool": "vision"}),
        "tolerations": st.just([{"key": "dedicated", "value": "vision"}]),
    },
)


label_values = st.from_regex(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?", fullmatch=True)
any_values = label_values | st.sampled_from(["8", "6", "0", "-1", "1e3", "NVIDIA-A10", "-SHARED", "9" * 30])


@given(any_values, any_values, any_values, any_values, any_values)
def test_labels_may_say_anything(product: str, major: str, minor: str, memory: str, replicas: str) -> None:
    node = a_node("gpu-1", A10).with_labels(
        gpu__product=product,
        gpu__compute__major=major,
        gpu__compute__minor=minor,
        gpu__memory=memory,
        gpu__replicas=replicas,
    )
    found = resolve(a_gpu_server(), node)
    if isinstance(found, Resolution):
        assert remembered(a_gpu_server(), node).target == found.target
    else:
        assert found.reason in ("IncompleteLabels", "UnsupportedGpu")


@given(clusters(), specs, st.randoms(use_true_random=False))
def test_the_order_of_nodes_decides_nothing(
    cluster: list[NodeBuilder], spec: dict[str, Any], shuffler: random.Random
) -> None:
    found, shuffled = a_gpu_server(**spec), list(cluster)
    shuffler.shuffle(shuffled)
    one, other = resolve(found, *cluster), resolve(found, *shuffled)
    if isinstance(one, Resolution):
        assert isinstance(other, Resolution)
        assert one.target == other.target
    else:
        assert isinstance(other, Outcome)
        assert one.reason == other.reason


@given(clusters(), clusters(), specs)
def test_what_was_known_once_is_never_lost(
    before: list[NodeBuilder], after: list[NodeBuilder], spec: dict[str, Any]
) -> None:
    """Whatever becomes of the nodes, the target stays; a problem says when they are others now."""
    first = resolve(a_gpu_server(**spec), *before)
    if not isinstance(first, Resolution):
        return
    known = remembered(a_gpu_server(**spec), *before)
    later = resolved(a_gpu_server(known=known, **spec), *after)
    assert later.target == first.target
    if later.problem is not None:
        assert later.problem.reason == "TargetChanged"
        assert first.target.product in later.problem.message


@given(clusters(), specs)
def test_a_target_is_of_the_spec_or_of_a_node_that_could_take_a_pod(
    cluster: list[NodeBuilder], spec: dict[str, Any]
) -> None:
    found = resolve(a_gpu_server(**spec), *cluster)
    if not isinstance(found, Resolution) or spec["gpu"] is STATED:
        return
    for each in (Node.parse(node.build()) for node in cluster):
        if each.name == found.node:
            assert each.labels["nvidia.com/gpu.product"] == found.target.product
            assert each.resources["nvidia.com/gpu"] >= spec["gpu"].get("count", 1)
            assert spec.get("nodeSelector", {}).items() <= each.labels.items()


@given(clusters(), specs)
def test_a_second_look_says_the_same(cluster: list[NodeBuilder], spec: dict[str, Any]) -> None:
    first = resolve(a_gpu_server(**spec), *cluster)
    if isinstance(first, Resolution):
        known = remembered(a_gpu_server(**spec), *cluster)
        again = resolved(a_gpu_server(known=known, **spec), *cluster)
        assert (again.target, again.problem, again.node) == (first.target, None, first.node)
