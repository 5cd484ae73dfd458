"""Our objects are put back; other people's are never touched."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest
from tests.builders import a_claim, a_model, a_repository
from tests.onnx_models import write_multiply

from triton_operator.plan import names

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.e2e.stage import Stage

Object = dict[str, Any]
OURS = "app.kubernetes.io/managed-by=triton-operator"


@pytest.fixture(scope="module")
def served(new_stage: Callable[[str], Stage]) -> Stage:
    """One pod that serves one model."""
    found = new_stage("ownership")
    found.set_up()
    found.apply(a_model("main").with_version(1, found.put_model("main.onnx", 2.0)))
    found.wait_ready("InferenceModel", "main")
    return found


def serves_again(stage: Stage) -> None:
    def answers() -> None:
        assert list(stage.served_factors("main").values()) == [2.0]

    stage.eventually(answers)
    for kind, name in (
        ("ModelRepository", "default"),
        ("TritonServer", "default"),
        ("InferenceModel", "main"),
    ):
        stage.wait_ready(kind, name)


def test_edited_objects_are_put_back(served: Stage) -> None:
    kube = served.kube
    arguments = "/spec/template/spec/containers/0/args/0"
    before = {name: kube.get("Deployment", name)["spec"] for name in ("triton-default", "keeper-default")}
    for name in before:
        kube.json_patch("Deployment", name, [{"op": "replace", "path": arguments, "value": "--foreign"}])
        kube.patch("Deployment", name, {"spec": {"replicas": 3}})
        kube.patch("Deployment", name, {"metadata": {"labels": {"app.kubernetes.io/component": "other"}}})
    kube.patch("Service", "triton-default", {"spec": {"selector": {"app": "foreign"}}})
    kube.patch(
        "Service", "triton-default-pods", {"metadata": {"labels": {"app.kubernetes.io/component": "x"}}}
    )
    kube.patch("PodDisruptionBudget", "triton-default", {"spec": {"maxUnavailable": 0}})

    def put_back() -> None:
        for name, spec in before.items():
            found = kube.get("Deployment", name)
            assert found["spec"] == spec
            assert found["metadata"]["labels"]["app.kubernetes.io/component"] == name.removesuffix("-default")
        service = kube.get("Service", "triton-default")
        assert service["spec"]["selector"]["triton-operator.io/server"] == "default"
        headless = kube.get("Service", "triton-default-pods")
        assert headless["metadata"]["labels"]["app.kubernetes.io/component"] == "triton"
        assert kube.get("PodDisruptionBudget", "triton-default")["spec"]["maxUnavailable"] == 1

    served.eventually(put_back)
    serves_again(served)


def test_object_without_our_label_is_put_back(served: Stage) -> None:
    served.kube.patch(
        "Service", "triton-default", {"metadata": {"labels": {"app.kubernetes.io/managed-by": None}}}
    )

    def put_back() -> None:
        labels = served.kube.get("Service", "triton-default")["metadata"]["labels"]
        assert labels.get("app.kubernetes.io/managed-by") == "triton-operator"

    served.eventually(put_back)


def test_deleted_objects_are_made_again(served: Stage) -> None:
    deleted = [
        (kind, each["metadata"]["name"], each["metadata"]["uid"])
        for kind in ("Deployment", "Service", "PodDisruptionBudget")
        for each in served.kube.list(kind, OURS)
    ]
    assert len(deleted) >= 5
    for kind, name, _ in deleted:
        served.kube.delete(kind, name)

    def there_again() -> None:
        for kind, name, uid in deleted:
            assert served.kube.get(kind, name)["metadata"]["uid"] != uid, f"{kind}/{name}"

    served.eventually(there_again)
    serves_again(served)


def test_deleted_secrets_come_back_when_a_pod_misses_them(served: Stage) -> None:
    secrets = {secret["metadata"]["name"] for secret in served.kube.list("Secret", OURS)}
    assert len(secrets) == 2
    served.eventually(lambda: only_one_of_each(served))
    for name in secrets:
        served.kube.delete("Secret", name)
    for component in ("triton", "keeper"):
        (pod,) = served.pods(component)
        with served.node_closed(pod):  # its kubelet remembers what it gave to pods
            served.kube.delete("Pod", pod["metadata"]["name"], grace_seconds=0)
            served.eventually(lambda component=component, pod=pod: moved(served, component, pod))

    def there_again() -> None:
        assert {secret["metadata"]["name"] for secret in served.kube.list("Secret", OURS)} == secrets

    served.eventually(there_again)
    serves_again(served)


def only_one_of_each(stage: Stage) -> None:
    """Fail while an older pod is on its way out, for which a kubelet may still remember a Secret."""
    for component in ("triton", "keeper"):
        assert len(stage.kube.list("Pod", f"app.kubernetes.io/component={component}")) == 1


def moved(stage: Stage, component: str, before: Object) -> None:
    (pod,) = stage.pods(component)
    assert pod["spec"].get("nodeName") not in (None, before["spec"]["nodeName"])


def test_service_of_another_name_takes_the_place_of_the_old_one(served: Stage) -> None:
    served.apply(served.a_server().with_spec(service={"name": "vision"}))

    def replaced() -> None:
        names_now = {service["metadata"]["name"] for service in served.kube.list("Service", OURS)}
        assert {"vision", "vision-pods"} <= names_now
        assert not {"triton-default", "triton-default-pods"} & names_now

    served.eventually(replaced)
    served.apply(served.a_server())
    served.eventually(lambda: served.kube.get("Service", "triton-default"))
    serves_again(served)


def test_deleted_engine_and_job_come_back_without_a_build(served: Stage) -> None:
    (engine,) = served.kube.list("Engine")
    name, attempt = engine["metadata"]["name"], engine["status"]["attempt"]
    for job in served.kube.list("Job", OURS):
        served.kube.delete("Job", job["metadata"]["name"])
    served.kube.delete("Engine", name)

    def there_again() -> None:
        found = served.kube.get("Engine", name)
        assert found["metadata"]["uid"] != engine["metadata"]["uid"]
        assert served.kube.condition("Engine", name, "Ready")[0] == "True"

    served.eventually(there_again)
    assert attempt == 1
    assert served.kube.list("Job", f"{OURS},triton-operator.io/engine={name}") == [], "it was built again"
    serves_again(served)


def a_foreign_deployment(name: str) -> Object:
    pod = {"containers": [{"name": "foreign", "image": "foreign"}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": "foreign"}},
            "template": {"metadata": {"labels": {"app": "foreign"}}, "spec": pod},
        },
    }


def a_foreign_service(name: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"ports": [{"port": 80}], "selector": {"app": "foreign"}},
    }


def a_foreign_budget(name: str) -> Object:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": name},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "foreign"}}},
    }


def a_foreign_job(name: str) -> Object:
    pod = {"containers": [{"name": "foreign", "image": "foreign"}], "restartPolicy": "Never"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"suspend": True, "template": {"spec": pod}},
    }


def stands_untouched(stage: Stage, made: Object) -> None:
    now = stage.kube.get(made["kind"], made["metadata"]["name"])
    assert now["metadata"]["uid"] == made["metadata"]["uid"]
    ignored = {"volumeName"}  # a claim's, by the cluster
    assert {k: v for k, v in now["spec"].items() if k not in ignored} == made["spec"]
    assert now["metadata"].get("labels") == made["metadata"].get("labels")
    assert not now["metadata"].get("ownerReferences")


def test_foreign_objects_are_named_and_left_alone_until_they_go(served: Stage, tmp_path: Path) -> None:
    content = write_multiply(tmp_path / "blocked.onnx", 7.0).read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    small = {"size": "8Mi"}
    foreign = {
        ("TritonServer", "one"): a_foreign_deployment("triton-one"),
        ("TritonServer", "two"): a_foreign_service("triton-two"),
        ("ModelRepository", "three"): a_foreign_deployment("keeper-three"),
        ("ModelRepository", "four"): a_claim("repository-four", size="8Mi"),
        ("InferenceModel", "five"): a_foreign_job(f"{engine_of(served, sha256)}-1"),
        ("TritonServer", "six"): a_foreign_budget("triton-six"),
    }
    made = {ours: served.kube.create(body) for ours, body in foreign.items()}
    served.apply(*(served.a_server(name) for name in ("one", "two", "six")))
    served.apply(*(a_repository(name).with_spec(storage=small) for name in ("three", "four")))
    served.apply(a_model("five").with_version(1, served.put("blocked.onnx", content), sha256=sha256))
    for (kind, name), theirs in made.items():
        served.wait_stalled(kind, name, "NameConflict")
        assert theirs["metadata"]["name"] in served.message(kind, name, "Stalled")
    for theirs in made.values():
        stands_untouched(served, theirs)
        served.kube.delete(theirs["kind"], theirs["metadata"]["name"])
    for kind, name in [*made, ("Engine", engine_of(served, sha256))]:  # a touch, or half a minute
        served.kube.patch(kind, name, {"metadata": {"annotations": {"touched": "true"}}})
    for kind, name in made:
        served.wait_ready(kind, name)
    served.discard("five")
    for kind, name in made:
        served.kube.delete(kind, name)


def engine_of(stage: Stage, sha256: str) -> str:
    """Return the name that the engine of a source has in the repository `default`."""
    uid = stage.kube.get("ModelRepository", "default")["metadata"]["uid"]
    key = names.prepared_engine_key(backend="ONNXRuntime", sha256=sha256, build={}, repository_uid=uid)
    return f"onnxruntime-{key[:16]}"
