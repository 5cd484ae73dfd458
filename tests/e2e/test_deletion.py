"""What is deleted goes, everywhere, and nothing hangs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.builders import a_model
from tests.integration.eventually import eventually

if TYPE_CHECKING:
    from tests.e2e.stage import Stage


def test_deleted_model_goes_from_pods_and_volume_and_its_engine_after_retention(stage: Stage) -> None:
    stage.set_up(replicas=2, retention="5s")
    stage.apply(
        a_model("leaving").with_version(1, stage.put_model("leaving.onnx", 2.0)),
        a_model("staying").with_version(1, stage.put_model("staying.onnx", 3.0)),
    )
    for model in ("leaving", "staying"):
        stage.wait_ready("InferenceModel", model)
    assert list(stage.served_factors("leaving").values()) == [2.0, 2.0]
    engine = stage.version_of("leaving")["engines"][0]
    assert engine in stage.on_volume(below="store")
    stage.kube.delete("InferenceModel", "leaving")

    def gone() -> None:
        assert list(stage.served_factors("leaving").values()) == [None, None]
        assert not any("leaving" in path for path in stage.on_volume(below="servers"))
        assert stage.kube.find("Engine", engine) is None
        assert not any(path.startswith(engine) for path in stage.on_volume(below="store"))

    stage.eventually(gone)
    assert list(stage.served_factors("staying").values()) == [3.0, 3.0]
    stage.wait_ready("InferenceModel", "staying")


def test_source_that_moves_is_followed_without_a_build(guest: Stage) -> None:
    uri, copied = guest.put_model("here.onnx", 12.0), guest.put_model("there.onnx", 12.0)
    sha256 = guest.sha256("here.onnx")
    guest.apply(a_model("moving").with_version(1, uri, sha256=sha256))
    guest.wait_ready("InferenceModel", "moving")
    loads = guest.loads()
    guest.apply(a_model("moving").with_version(1, copied, sha256=sha256))
    engine = guest.version_of("moving")["engines"][0]

    def moved() -> None:
        assert guest.kube.get("Engine", engine)["spec"]["source"]["uri"] == copied

    guest.eventually(moved)
    guest.wait_ready("InferenceModel", "moving")
    assert guest.loads() == loads
    assert guest.kube.get("Engine", engine)["status"]["attempt"] == 1


def test_namespace_deleted_in_the_middle_of_it_all_goes(stage: Stage) -> None:
    stage.set_up(replicas=2)
    names = [f"m{index}" for index in range(4)]
    uris = {name: stage.put_model(f"{name}.onnx", float(index)) for index, name in enumerate(names)}
    stage.apply(*(a_model(name).with_version(1, uri) for name, uri in uris.items()))

    def at_work() -> None:
        assert len(stage.kube.list("Job")) >= 2

    stage.eventually(at_work)
    stage.leave()
    stage.wait_gone()
    stage.installation.wait_ready()
    namespace = f'"{stage.namespace}"'
    assert [line for line in stage.installation.complaints() if namespace in line] == []

    def no_volume_left() -> None:
        volumes = stage.cluster.kube().list("PersistentVolume")
        claims = [volume["spec"].get("claimRef", {}) for volume in volumes]
        assert not any(claim.get("namespace") == stage.namespace for claim in claims)

    eventually(no_volume_left)
