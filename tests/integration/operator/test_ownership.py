"""Our objects are put back; other people's are never touched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.builders import a_model, a_repository, a_server
from tests.integration.eventually import eventually

if TYPE_CHECKING:
    from tests.integration.operator.stage import Stage


def served(stage: Stage) -> None:
    stage.set_up()
    stage.apply(a_model("main").with_version(1, stage.put_model("1.onnx", 2.0)))
    stage.wait_ready("InferenceModel", "main")


def test_edited_children_are_put_back(stage: Stage) -> None:
    served(stage)
    container = [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "foreign"}]
    for name in ("triton-default", "keeper-default"):
        before = stage.kube.get("Deployment", name)["spec"]["template"]["spec"]["containers"][0]["image"]
        stage.kube.json_patch("Deployment", name, container)
        eventually(lambda name=name, before=before: image_is(stage, name, before), because=stage.explain)
    stage.kube.patch("Deployment", "triton-default", {"spec": {"replicas": 5}})
    stage.kube.patch("Service", "triton-default", {"spec": {"selector": {"app": "foreign"}}})

    def put_back() -> None:
        assert stage.kube.get("Deployment", "triton-default")["spec"]["replicas"] == 1
        selector = stage.kube.get("Service", "triton-default")["spec"]["selector"]
        assert selector["triton-operator.io/server"] == "default"

    eventually(put_back, because=stage.explain)
    stage.wait_ready("InferenceModel", "main")


def image_is(stage: Stage, name: str, image: str) -> None:
    assert stage.kube.get("Deployment", name)["spec"]["template"]["spec"]["containers"][0]["image"] == image


def test_deleted_children_are_made_again(stage: Stage) -> None:
    served(stage)
    children = [
        (kind, each["metadata"]["name"], each["metadata"]["uid"])
        for kind in ("Secret", "Deployment", "Service")  # a Secret comes back when a new pod needs it
        for each in stage.kube.list(kind, "app.kubernetes.io/managed-by=triton-operator")
    ]
    assert len(children) >= 6
    for kind, name, _ in children:
        stage.kube.delete(kind, name)

    def there_again() -> None:
        for kind, name, uid in children:
            assert stage.kube.get(kind, name)["metadata"]["uid"] != uid, f"{kind}/{name}"

    eventually(there_again, within=60, because=stage.explain)
    stage.wait_ready("InferenceModel", "main")
    assert set(stage.served_factors("main").values()) == {2.0}


def test_engine_deleted_by_hand_comes_back_without_a_build(stage: Stage) -> None:
    served(stage)
    (engine,) = stage.kube.list("Engine")
    name = engine["metadata"]["name"]
    stage.kube.delete("Engine", name)

    def there_again() -> None:
        found = stage.kube.get("Engine", name)
        assert found["metadata"]["uid"] != engine["metadata"]["uid"]
        assert stage.kube.condition("Engine", name, "Ready")[0] == "True"

    eventually(there_again, within=60, because=stage.explain)
    assert (stage.volume() / "store" / name / "model.onnx").exists()
    assert set(stage.served_factors("main").values()) == {2.0}
    owners = [owner["uid"] for job in stage.kube.list("Job") for owner in job["metadata"]["ownerReferences"]]
    assert stage.kube.get("Engine", name)["metadata"]["uid"] not in owners, (
        "what lies in the store was built again"
    )


FOREIGN: dict[str, dict[str, Any]] = {
    "Service": {"ports": [{"port": 80}], "selector": {"app": "foreign"}},
    "Deployment": {
        "replicas": 0,
        "selector": {"matchLabels": {"app": "foreign"}},
        "template": {
            "metadata": {"labels": {"app": "foreign"}},
            "spec": {"containers": [{"name": "foreign", "image": "foreign"}]},
        },
    },
}


@pytest.mark.parametrize(
    ("kind", "name", "owner"),
    [
        ("Service", "triton-default", "TritonServer"),
        ("Deployment", "triton-default", "TritonServer"),
        ("Deployment", "keeper-default", "ModelRepository"),
    ],
)
def test_foreign_object_is_named_and_left_alone(stage: Stage, kind: str, name: str, owner: str) -> None:
    version = "v1" if kind == "Service" else "apps/v1"
    foreign = {"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": FOREIGN[kind]}
    made = stage.kube.create(foreign)
    stage.set_up()
    stage.apply(a_model("main").with_version(1, stage.put_model("1.onnx", 2.0)))
    stage.wait_condition(owner, "default", "Stalled", "True", reason="NameConflict")
    assert name in stage.message(owner, "default", "Stalled")
    now = stage.kube.get(kind, name)
    assert now["metadata"]["uid"] == made["metadata"]["uid"]
    assert now["spec"] == made["spec"]
    assert not now["metadata"].get("ownerReferences")
    stage.kube.delete(kind, name)
    stage.wait_ready("InferenceModel", "main")


def test_volume_of_another_cluster_is_refused(stage: Stage) -> None:
    served(stage)
    marker = stage.volume() / ".owner"
    assert stage.kube.namespace in marker.read_text()
    stage.apply(
        a_repository("second").on_claim("repository-default"), a_server("second").on_repository("second")
    )

    def told() -> None:
        status, reason, message = stage.kube.condition("ModelRepository", "second", "Ready")
        assert status != "True"
        assert reason not in ("", "KeeperStarting"), message

    eventually(told, because=stage.explain)
    stage.wait_ready("InferenceModel", "main")
