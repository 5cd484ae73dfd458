from __future__ import annotations

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.nodes import A10, NodeBuilder, a_mig_mixed_node, a_node

from triton_operator.plan import nodes
from triton_operator.plan.nodes import Node
from triton_operator.resources.pods import Toleration

NODES = {
    "cpu": a_node("cpu-1"),
    "gpu": a_node("gpu-1", A10).with_taint("nvidia.com/gpu", "present"),
    "mig": a_mig_mixed_node("mig-1"),
    "no labels": a_node("bare-1", A10).without_labels(),
    "driver down": a_node("down-1", A10).offering({}),
}


@pytest.mark.parametrize("name", NODES)
def test_what_is_kept_of_a_node_says_all_that_is_read_of_it(name: str) -> None:
    whole = NODES[name].build()
    found = nodes.kept(whole)
    assert Node.parse(found).has_gpu == Node.parse(whole).has_gpu
    if Node.parse(whole).has_gpu:
        assert Node.parse(found) == Node.parse(whole)
    assert nodes.kept(found) == found


def test_little_is_kept_of_a_node_and_nothing_but_its_identity_without_a_gpu() -> None:
    whole, bare = NODES["gpu"].build(), NODES["cpu"].build()
    assert nodes.kept(bare) == {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "cpu-1", "uid": "cpu-1-uid", "resourceVersion": "1"},
    }
    assert len(json.dumps(nodes.kept(whole))) < len(json.dumps(whole)) / 3


def test_what_is_kept_shares_nothing_with_the_event_that_brought_it() -> None:
    whole = NODES["gpu"].build()
    found = nodes.kept(whole)
    whole["metadata"]["labels"].clear()
    whole["status"]["allocatable"].clear()
    assert Node.parse(found) == Node.parse(NODES["gpu"].build())


def test_a_heartbeat_changes_nothing_and_a_label_does() -> None:
    before = nodes.kept(a_node("gpu-1", A10).build())
    beat = nodes.kept(a_node("gpu-1", A10, version=2).build())
    changed = nodes.kept(a_node("gpu-1", A10, version=3).with_labels(gpu__product="NVIDIA-L4").build())
    tainted = nodes.kept(a_node("gpu-1", A10, version=4).with_taint("dedicated").build())
    another = copy.deepcopy(before)
    another["metadata"]["uid"] = "another"
    assert nodes.is_same(before, beat)
    assert not any(nodes.is_same(before, each) for each in (changed, tainted, another))


@pytest.mark.parametrize(
    ("amount", "count"), [("4", 4), ("1k", 1000), ("0", 0), ("", 0), ("-", 0), (3, 3), ("2.5", 2)]
)
def test_amounts_of_resources_are_quantities(amount: str | int, count: int) -> None:
    found = Node.parse(a_node("gpu-1").offering({"nvidia.com/gpu": amount}).build())
    assert found.resources.get("nvidia.com/gpu", 0) == count


def test_only_extended_resources_count() -> None:
    node = a_node("n").offering({"kubernetes.io/batch": 1, "smarter-devices/fuse": 20}).build()
    assert Node.parse(node).resources == {"smarter-devices/fuse": 20}


TAINTED = a_node("gpu-1", A10).with_taint("nvidia.com/gpu", "present")


@pytest.mark.parametrize(
    ("toleration", "admitted"),
    [
        ({"key": "nvidia.com/gpu", "operator": "Exists"}, True),
        ({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}, True),
        ({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": "nvidia.com/gpu", "operator": "Equal", "value": "present"}, True),
        ({"key": "nvidia.com/gpu", "value": "present"}, True),
        ({"key": "nvidia.com/gpu", "value": "absent"}, False),
        ({"key": "nvidia.com/gpu"}, False),
        ({"operator": "Exists"}, True),
        ({"key": "dedicated", "operator": "Exists"}, False),
    ],
)
def test_taints_are_tolerated_as_the_scheduler_does(toleration: dict[str, str], *, admitted: bool) -> None:
    node = Node.parse(TAINTED.build())
    assert (node.hindrance([Toleration.model_validate(toleration)]) is None) == admitted
    assert str(node.hindrance([])) == "nvidia.com/gpu=present:NoSchedule"


@pytest.mark.parametrize(
    ("key", "effect"),
    [
        ("node.kubernetes.io/unschedulable", "NoSchedule"),
        ("node.kubernetes.io/unreachable", "NoExecute"),
        ("node.cloudprovider.kubernetes.io/uninitialized", "NoSchedule"),
        ("dedicated", "PreferNoSchedule"),
    ],
)
def test_taints_of_a_passing_state_say_nothing_about_hardware(key: str, effect: str) -> None:
    node = Node.parse(a_node("gpu-1", A10).with_taint(key, effect=effect).build())
    assert node.hindrance([]) is None


keys = st.sampled_from(["a", "b"])
taints = st.builds(lambda k, v, e: (k, v, e), keys, keys, st.sampled_from(["NoSchedule", "NoExecute"]))
tolerations = st.fixed_dictionaries(
    {},
    optional={"key": keys, "value": keys, "effect": st.sampled_from(["NoSchedule", "NoExecute"])},
).map(lambda found: {**found, "operator": "Equal" if "key" in found and "value" in found else "Exists"})


@given(st.lists(taints, max_size=4), st.lists(tolerations, max_size=4))
def test_one_more_toleration_never_keeps_a_pod_off(
    found: list[tuple[str, str, str]], tolerated: list[dict[str, str]]
) -> None:
    builder: NodeBuilder = a_node("gpu-1", A10)
    for key, value, effect in found:
        builder = builder.with_taint(key, value, effect)
    node = Node.parse(builder.build())
    parsed = [Toleration.model_validate(each) for each in tolerated]
    for index in range(len(parsed)):
        if node.hindrance(parsed[:index]) is None:
            assert node.hindrance(parsed[: index + 1]) is None
    assert node.hindrance([*parsed, Toleration.model_validate({"operator": "Exists"})]) is None
