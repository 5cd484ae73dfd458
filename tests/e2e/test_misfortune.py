"""What the world gets wrong: volumes run full, pods are evicted, nodes go. Retried, and shown as such."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.builders import a_model
from tests.e2e.samples import write_large

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.stage import Stage

NOWHERE = {"triton-operator.io/no-such-node": "true"}
SMALL, LARGE = "4Mi", 6_000_000


@pytest.fixture(scope="module")
def served(new_stage: Callable[[str], Stage]) -> Stage:
    """One pod that serves one model, on a small volume."""
    found = new_stage("misfortune")
    found.set_up(size=SMALL)
    found.apply(a_model("main").with_version(1, found.put_model("main.onnx", 2.0)))
    found.wait_ready("InferenceModel", "main")
    return found


def test_full_volume_is_told_and_nothing_half_written_is_visible(served: Stage) -> None:
    before = served.on_volume(below="store")
    uri = served.put_written("large.onnx", lambda path: write_large(path, LARGE))
    served.apply(a_model("large").with_version(1, uri))

    def told() -> None:
        version = served.version_of("large")
        assert version["reason"] == "VolumeFull", version
        assert served.kube.condition("InferenceModel", "large", "Stalled")[0] == "False"
        assert served.kube.condition("InferenceModel", "large", "Reconciling")[0] == "True"

    served.eventually(told)
    assert served.on_volume(below="store") == before
    assert not any("large" in path for path in served.on_volume(below="servers"))
    served.apply(a_model("small").with_version(1, served.put_model("small.onnx", 3.0)))
    served.wait_ready("InferenceModel", "small")
    assert set(served.served_factors("small").values()) == {3.0}
    served.discard("large", "small")


@pytest.fixture
def held(served: Stage) -> Iterator[Stage]:
    """No node takes Jobs; their pods wait until `let_go`."""
    served.kube.patch("ModelRepository", "default", {"spec": {"prepare": {"nodeSelector": NOWHERE}}})
    served.wait_ready("ModelRepository", "default")
    yield served
    let_go(served)


def let_go(stage: Stage) -> None:
    prepare = {"spec": {"prepare": {"nodeSelector": dict.fromkeys(NOWHERE)}}}
    stage.kube.patch("ModelRepository", "default", prepare)


def evict(stage: Stage, pod: str) -> None:
    stage.evict(pod)


def delete(stage: Stage, pod: str) -> None:
    stage.kube.delete("Pod", pod, grace_seconds=0)


LOSSES = {"evicted": evict, "deleted": delete}


def test_jobs_whose_pods_are_lost_are_tried_again(held: Stage) -> None:
    for factor, name in enumerate(LOSSES, start=30):
        uri = held.put_model(f"{name}.onnx", float(factor))
        held.apply(a_model(name).with_version(1, uri, sha256=held.sha256(f"{name}.onnx")))

    def told_why_they_wait() -> None:
        assert {held.version_of(name)["reason"] for name in LOSSES} == {"Unschedulable"}

    held.eventually(told_why_they_wait)
    for name, lose in LOSSES.items():
        (pod,) = waiting(held, engine=held.version_of(name)["engines"][0])
        lose(held, pod)

    def told() -> None:
        for name in LOSSES:
            version = held.version_of(name)
            assert "attempt 1 failed" in version["message"], version
            assert held.kube.condition("InferenceModel", name, "Stalled")[0] == "False"

    held.eventually(told)
    let_go(held)

    def built() -> None:
        for late in waiting(held):  # an attempt that began before
            delete(held, late)
        for name in LOSSES:
            assert held.kube.condition("InferenceModel", name, "Ready")[0] == "True"

    held.eventually(built)
    for name in LOSSES:
        engine = held.version_of(name)["engines"][0]
        assert held.kube.get("Engine", engine)["status"]["attempt"] >= 2
    held.discard(*LOSSES)


def waiting(stage: Stage, *, engine: str = "") -> list[str]:
    """Return the pods of Jobs that no node took, of one engine or of all."""
    return [
        pod["metadata"]["name"]
        for pod in stage.pods("prepare")
        if pod["status"]["phase"] == "Pending"
        and pod["spec"].get("nodeSelector") == NOWHERE
        and engine in ("", pod["metadata"]["labels"]["triton-operator.io/engine"])
    ]


def test_pods_of_a_lost_node_come_back_on_another(served: Stage) -> None:
    """Cordoned and killed without grace: stopping a kubelet would disturb the cluster's other users."""
    for component in ("triton", "keeper"):
        (pod,) = served.pods(component)
        with served.node_closed(pod):
            delete(served, pod["metadata"]["name"])
            served.eventually(lambda component=component, pod=pod: moved(served, component, pod))

    def answers() -> None:
        assert list(served.served_factors("main").values()) == [2.0]

    served.eventually(answers)
    served.wait_ready("InferenceModel", "main")
    served.wait_ready("ModelRepository", "default")


def moved(stage: Stage, component: str, before: dict[str, Any]) -> None:
    (pod,) = stage.pods(component)
    assert pod["spec"]["nodeName"] != before["spec"]["nodeName"]
    ready = {each["type"]: each["status"] for each in pod["status"]["conditions"]}
    assert ready["Ready"] == "True"
