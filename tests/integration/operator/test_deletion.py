"""What is deleted goes, everywhere, and nothing hangs."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from tests.builders import a_claim, a_model, a_repository, a_server
from tests.integration.eventually import eventually
from tests.integration.kube import Kube
from tests.integration.operator.stage import RELEASE, SOURCES

if TYPE_CHECKING:
    from tests.integration.operator.stage import Stage


def test_deleted_model_is_unloaded_its_directory_goes_and_its_engine_after_retention(stage: Stage) -> None:
    stage.apply(a_claim(SOURCES), a_repository().with_retention("1s"), a_server().with_replicas(2))
    stage.apply(
        a_model("leaving").with_version(1, stage.put_model("1.onnx", 2.0)),
        a_model("staying").with_version(1, stage.put_model("2.onnx", 3.0)),
    )
    for model in ("leaving", "staying"):
        stage.wait_ready("InferenceModel", model)
    tree = stage.volume() / "servers/default" / RELEASE
    engine = (tree / "leaving/1").resolve()
    stage.kube.delete("InferenceModel", "leaving")

    def gone() -> None:
        assert set(stage.served_factors("leaving").values()) == {None}
        assert not (tree / "leaving").exists()
        assert not engine.exists()
        assert stage.kube.find("Engine", engine.name) is None

    eventually(gone, within=60, because=stage.explain)
    assert set(stage.served_factors("staying").values()) == {3.0}
    stage.wait_ready("InferenceModel", "staying")
    assert {double.counts.unloads["staying"] for double in stage.tritons().values()} == {0}


def test_removed_version_leaves_and_the_other_serves_on(stage: Stage) -> None:
    stage.set_up()
    first, second = stage.put_model("1.onnx", 2.0), stage.put_model("2.onnx", 5.0)
    stage.apply(a_model("back").with_version(1, first).with_version(2, second))
    stage.wait_ready("InferenceModel", "back")
    stage.apply(a_model("back").with_version(1, first))

    def back() -> None:
        assert set(stage.served_factors("back").values()) == {2.0}
        assert not (stage.volume() / "servers/default" / RELEASE / "back/2").exists()

    eventually(back, because=stage.explain)
    (double,) = stage.tritons().values()
    assert double.repository.version_loads["back", 1] == 1, "the version that stays was loaded again"


def test_deleted_server_takes_its_children_and_its_tree(stage: Stage) -> None:
    stage.set_up()
    stage.apply(a_model("main").with_version(1, stage.put_model("1.onnx", 2.0)))
    stage.wait_ready("InferenceModel", "main")
    stage.kube.delete("TritonServer", "default")

    def gone() -> None:
        assert stage.kube.find("Deployment", "triton-default") is None
        assert stage.kube.find("Service", "triton-default") is None
        assert stage.tritons() == {}
        assert not (stage.volume() / "servers/default" / RELEASE).exists()

    eventually(gone, within=60, because=stage.explain)
    stage.wait_condition("InferenceModel", "main", "Reconciling", "True", reason="ServerNotFound")
    stage.apply(a_server())
    stage.wait_ready("InferenceModel", "main")


def test_deleted_repository_keeps_its_claim(stage: Stage) -> None:
    stage.set_up()
    stage.apply(a_model("main").with_version(1, stage.put_model("1.onnx", 2.0)))
    stage.wait_ready("InferenceModel", "main")
    stage.kube.delete("ModelRepository", "default")
    stage.wait_gone("Deployment", "keeper-default")
    claim = stage.kube.get("PersistentVolumeClaim", "repository-default")
    assert "deletionTimestamp" not in claim["metadata"]
    assert set(stage.served_factors("main").values()) == {2.0}, "pods serve on from what they have"


def test_namespace_deleted_in_the_middle_of_it_all_goes(stage: Stage) -> None:
    stage.set_up(replicas=2)
    models = [a_model(f"m{i}").with_version(1, stage.put_model(f"{i}.onnx", float(i))) for i in range(4)]
    stage.apply(*models)
    stage.wait_ready("InferenceModel", "m0")
    namespace = stage.kube.namespace
    cluster = Kube(stage.kube.url, token=stage.kube.token, certificate=stage.kube.certificate)
    with contextlib.closing(cluster):
        cluster.delete("Namespace", namespace)

        def gone() -> None:
            found = cluster.find("Namespace", namespace)
            assert found is None, found["status"] if found else ""

        eventually(gone, within=60)
    assert stage.operator.alive
