"""A server's GPU, read from real Node objects: found, ambiguous, refused, kept, changed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from tests.integration.controllers import make_account
from tests.integration.eventually import eventually
from tests.integration.operator.operator_process import FLEET_SECONDS, OPERATOR_NAMESPACE, OperatorProcess
from tests.integration.operator.stage import Stage
from tests.nodes import A10, GTX_1050_TI, L4, NodeBuilder, a_mig_mixed_node, a_node
from tests.told import summary

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.apiserver import ApiServer
    from tests.integration.kube import Kube
    from tests.integration.kubelet_double import KubeletDouble

LABEL = "nvidia.com/gpu.product"
STATED = {"product": "NVIDIA-A10", "computeCapability": "8.6", "memoryMiB": 23028}

Object = dict[str, Any]


class Rack:
    """GPU nodes that only servers of one namespace tolerate; their kubelet is nobody."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._names: set[str] = set()
        self.tolerations = [{"key": "rack", "value": kube.namespace, "effect": "NoSchedule"}]

    def name(self, name: str) -> str:
        """Return what a node of this rack is called."""
        return f"{self._kube.namespace}-{name}"

    def put(self, node: NodeBuilder) -> None:
        """Let a node be there, or be so from now on."""
        body = node.with_taint("rack", self._kube.namespace).build()
        name = self.name(body["metadata"]["name"])
        metadata = {"name": name, "labels": body["metadata"]["labels"]}
        spec = {"taints": body["spec"]["taints"]}
        if name in self._names:
            labels = self._kube.get("Node", name)["metadata"]["labels"]
            gone = {label: None for label in labels if label not in metadata["labels"]}
            self._kube.patch("Node", name, {"metadata": {"labels": {**metadata["labels"], **gone}}})
        else:
            self._kube.create({"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": spec})
        self._names.add(name)
        amounts = {key: body["status"][key] for key in ("capacity", "allocatable")}
        self._kube.patch("Node", name, {"status": amounts}, subresource="status")

    def take(self, name: str) -> None:
        """Take a node away."""
        self._kube.delete("Node", self.name(name))
        self._names.discard(self.name(name))

    def clear(self) -> None:
        """Take all away."""
        for name in self._names:
            self._kube.delete("Node", name)


@pytest.fixture
def rack(kube: Kube) -> Iterator[Rack]:
    """The nodes of this test alone."""
    found = Rack(kube)
    yield found
    found.clear()


def the_server(stage: Stage) -> Object:
    return stage.kube.get("TritonServer", "default")


def wait_stalled(stage: Stage, reason: str) -> str:
    stage.wait_condition("TritonServer", "default", "Stalled", "True", reason=reason)
    return stage.message("TritonServer", "default")


def wait_waiting(stage: Stage, reason: str) -> str:
    stage.wait_condition("TritonServer", "default", "Reconciling", "True", reason=reason)
    return stage.message("TritonServer", "default")


def wait_target(stage: Stage, product: str) -> Object:
    """Wait until the status names a product and no trouble with it, and return the target."""

    def check() -> Object:
        found = the_server(stage)
        target: Object = found["status"].get("target", {})
        assert target.get("product") == product, summary(found)
        assert stage.kube.condition("TritonServer", "default", "Stalled")[0] == "False", summary(found)
        return target

    return eventually(check, because=stage.explain)


def deployment(stage: Stage) -> Object:
    return stage.kube.get("Deployment", "triton-default")


def products(stage: Stage) -> list[str]:
    """Return the products that pods of the server may run on."""
    affinity = deployment(stage)["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]
    (term,) = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    (expression,) = term["matchExpressions"]
    assert (expression["key"], expression["operator"]) == (LABEL, "In")
    return list(expression["values"])


def test_server_without_gpus_is_for_the_cpu(stage: Stage) -> None:
    stage.set_up()
    assert wait_target(stage, "cpu") == {"product": "cpu"}
    stage.serve("text", 2.0)
    assert "affinity" not in deployment(stage)["spec"]["template"]["spec"]


def test_server_waits_for_its_node_and_serves_on_that_product(stage: Stage, rack: Rack) -> None:
    stage.set_up(gpu={}, tolerations=rack.tolerations)
    wait_waiting(stage, "NoGpuNode")
    assert stage.kube.find("Deployment", "triton-default") is None
    rack.put(a_node("a10-1", A10))
    expected = {
        "product": "NVIDIA-A10",
        "computeCapability": "8.6",
        "memoryMiB": 23028,
        "resource": "nvidia.com/gpu",
    }
    assert wait_target(stage, "NVIDIA-A10") == expected
    stage.serve("text", 2.0)
    (container,) = deployment(stage)["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "1"}
    assert products(stage) == ["NVIDIA-A10", "NVIDIA-A10-SHARED"]
    stage.wait_ready("TritonServer", "default")
    message = stage.message("TritonServer", "default")
    assert "target NVIDIA-A10 (8.6, 23028 MiB), as the labels of its nodes sa" in message


def test_target_is_kept_when_labels_vanish_and_nodes_go(stage: Stage, rack: Rack) -> None:
    rack.put(a_node("a10-1", A10))
    stage.set_up(gpu={}, tolerations=rack.tolerations)
    before = wait_target(stage, "NVIDIA-A10")
    stage.serve("text", 2.0)
    stage.wait_ready("TritonServer", "default")
    calls, generation = stage.calls(), deployment(stage)["metadata"]["generation"]
    rack.put(a_node("a10-1", A10).without_labels())
    rack.put(a_node("a10-1", A10).without_labels().offering({"nvidia.com/gpu": 0}))
    rack.take("a10-1")
    time.sleep(2 * FLEET_SECONDS)  # that nothing happens can't be polled for
    stage.wait_ready("TritonServer", "default")
    assert the_server(stage)["status"]["target"] == before
    assert (stage.calls(), deployment(stage)["metadata"]["generation"]) == (calls, generation)


def test_target_is_found_again_when_the_status_is_lost_and_nodes_are_gone(stage: Stage, rack: Rack) -> None:
    rack.put(a_node("a10-1", A10))
    stage.set_up(gpu={}, tolerations=rack.tolerations)
    before = wait_target(stage, "NVIDIA-A10")
    stage.serve("text", 2.0)
    stage.operator.kill()
    rack.take("a10-1")
    stage.kube.patch("TritonServer", "default", {"status": None}, subresource="status")
    stage.operator.start()
    assert wait_target(stage, "NVIDIA-A10") == before
    stage.wait_ready("TritonServer", "default")


def test_several_products_are_ambiguous_until_the_spec_chooses(stage: Stage, rack: Rack) -> None:
    rack.put(a_node("a10-1", A10))
    rack.put(a_node("l4-1", L4))
    stage.set_up(gpu={}, tolerations=rack.tolerations)
    message = wait_stalled(stage, "AmbiguousTarget")
    assert "NVIDIA-A10 (1 node), NVIDIA-L4 (1 node)" in message
    assert "target" not in the_server(stage)["status"]
    stage.apply(stage.a_server(replicas=1, gpu={"product": "NVIDIA-L4"}, tolerations=rack.tolerations))
    assert wait_target(stage, "NVIDIA-L4")["computeCapability"] == "8.9"


def test_gpu_that_tensorrt_cannot_use_is_refused_with_its_node(stage: Stage, rack: Rack) -> None:
    rack.put(a_node("old-1", GTX_1050_TI))
    stage.set_up(gpu={}, tolerations=rack.tolerations)
    message = wait_stalled(stage, "UnsupportedGpu")
    for text in ("NVIDIA-GeForce-GTX-1050-Ti", "6.1", rack.name("old-1"), "7.5"):
        assert text in message
    stage.apply(stage.a_model("text", 2.0))
    stage.wait_condition("InferenceModel", "text", "Reconciling", "True", reason="ServerNotReady")
    assert "6.1" in stage.message("InferenceModel", "text")
    assert stage.kube.find("Deployment", "triton-default") is None


def test_node_without_labels_is_named_and_the_spec_can_say_it(stage: Stage, rack: Rack) -> None:
    rack.put(a_node("bare-1", A10).without_labels())
    stage.set_up(gpu={}, tolerations=rack.tolerations)
    assert rack.name("bare-1") in wait_stalled(stage, "IncompleteLabels")
    stage.apply(stage.a_server(replicas=1, gpu=STATED, tolerations=rack.tolerations))
    wait_target(stage, "NVIDIA-A10")
    stage.serve("text", 2.0)


def test_other_gpus_under_the_same_nodes_stall_the_server_which_serves_on(stage: Stage, rack: Rack) -> None:
    rack.put(a_node("gpu-1", A10))
    stage.set_up(gpu={}, tolerations=rack.tolerations)
    wait_target(stage, "NVIDIA-A10")
    stage.serve("text", 2.0)
    rack.put(a_node("gpu-1", L4))
    message = wait_stalled(stage, "TargetChanged")
    assert "NVIDIA-A10 (8.6, 23028 MiB)" in message
    assert "NVIDIA-L4 (1 node)" in message
    assert set(stage.served_factors("text").values()) == {2.0}
    assert products(stage)[0] == "NVIDIA-A10"
    stage.apply(stage.a_server(replicas=1, gpu={"product": "NVIDIA-L4"}, tolerations=rack.tolerations))
    wait_target(stage, "NVIDIA-L4")
    eventually(lambda: expect_products(stage, "NVIDIA-L4"), because=stage.explain)
    stage.wait_ready("TritonServer", "default")
    assert set(stage.served_factors("text").values()) == {2.0}


def expect_products(stage: Stage, product: str) -> None:
    assert products(stage)[0] == product


def test_mig_profile_of_a_mixed_node_is_a_target_of_its_own(stage: Stage, rack: Rack) -> None:
    rack.put(a_mig_mixed_node("mig-1"))
    stage.set_up(gpu={"resource": "nvidia.com/mig-1g.10gb"}, tolerations=rack.tolerations)
    found = wait_target(stage, "NVIDIA-A100-SXM4-80GB-MIG-1g.10gb")
    assert (found["memoryMiB"], found["resource"]) == (9728, "nvidia.com/mig-1g.10gb")


NAMESPACED = {
    "": ["pods", "services", "secrets", "persistentvolumeclaims"],
    "triton-operator.io": ["*"],
    "apps": ["deployments"],
    "batch": ["jobs"],
    "policy": ["poddisruptionbudgets"],
    "events.k8s.io": ["events"],
    "coordination.k8s.io": ["leases"],
}


def test_operator_without_a_right_to_nodes_takes_the_word_of_the_spec(
    api_server: ApiServer,
    kube: Kube,
    kubelet: KubeletDouble,
    operator_process: OperatorProcess,
    tmp_path: Path,
) -> None:
    operator_process.stop()  # it works in all namespaces; the next test starts it again
    role = f"no-nodes-{kube.namespace}"
    rules = [{"apiGroups": [g], "resources": each, "verbs": ["*"]} for g, each in NAMESPACED.items()]
    kube.create(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": role},
            "rules": rules,
        }
    )
    account = make_account(api_server, role, namespace=OPERATOR_NAMESPACE, directory=tmp_path, role=role)
    settings = {"watch_namespaces": kube.namespace, "cluster_uid": "tests", "lease_name": role}
    limited = OperatorProcess(api_server, tmp_path, account=account, settings=settings)
    stage = Stage(kube=kube, kubelet=kubelet, operator=limited)
    limited.start()
    try:
        stage.set_up(gpu={})
        assert "spec.gpu.memoryMiB" in wait_stalled(stage, "NodesUnreadable")
        stage.apply(stage.a_server(replicas=1, gpu=STATED))
        wait_target(stage, "NVIDIA-A10")
        stage.serve("text", 2.0)
    finally:
        limited.stop()
    assert "Forbidden" not in limited.log.read_text()
