"""What users get wrong, and what the world gets wrong: told, survived, and mended."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from tests.builders import a_claim, a_model, a_repository
from tests.integration.eventually import eventually
from tests.integration.kubelet_double import TMPFS_SIZE
from tests.integration.operator.stage import uri_of
from tests.onnx_models import write_external, write_multiply, write_unknown_operator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.operator.stage import Stage

BAD_SOURCES = {
    "missing": "SourceNotFound",
    "text": "InvalidModel",
    "truncated": "InvalidModel",
    "escaping": "UnsafeSource",
    "unknown-operator": "UnsupportedOperator",
}


def put_bad_sources(stage: Stage) -> None:
    sources = stage.sources()
    (sources / "text.onnx").write_text("this is not a model")
    whole = write_multiply(sources / "truncated.onnx", 2.0)
    whole.write_bytes(whole.read_bytes()[:-20])
    write_external(sources / "escaping.onnx", location="../outside.bin")
    write_unknown_operator(sources / "unknown-operator.onnx")


def test_bad_sources_stall_with_a_reason_and_fixed_ones_recover(stage: Stage) -> None:
    stage.set_up()
    good = stage.put_model("good.onnx", 2.0)
    put_bad_sources(stage)
    stage.apply(a_model("good").with_version(1, good))
    stage.apply(*(a_model(name).with_version(1, uri_of(f"{name}.onnx")) for name in BAD_SOURCES))
    stage.apply(a_model("digest").with_version(1, good, sha256="0" * 64))
    for name, reason in {**BAD_SOURCES, "digest": "DigestMismatch"}.items():
        stage.wait_condition("InferenceModel", name, "Stalled", "True", reason=reason)
        status = stage.kube.get("InferenceModel", name)["status"]["versions"][0]
        assert (status["state"], status["reason"]) == ("Failed", reason)
        assert status["message"]
    stage.wait_ready("InferenceModel", "good")
    assert set(stage.served_factors("good").values()) == {2.0}

    for name in ("text", "digest"):
        stage.apply(a_model(name).with_version(2, stage.put_model(f"{name}-2.onnx", 3.0)))
        stage.wait_ready("InferenceModel", name)
    stage.put_model("missing.onnx", 4.0)
    stage.wait_ready("InferenceModel", "missing")
    assert set(stage.served_factors("missing").values()) == {4.0}


def test_broken_version_leaves_the_old_one_serving(stage: Stage) -> None:
    stage.set_up()
    model = a_model("steady").with_version(1, stage.put_model("1.onnx", 2.0))
    stage.apply(model)
    stage.wait_ready("InferenceModel", "steady")
    (stage.sources() / "2.onnx").write_text("this is not a model")
    stage.apply(model.with_version(2, uri_of("2.onnx")))
    stage.wait_condition("InferenceModel", "steady", "Stalled", "True", reason="InvalidModel")
    assert set(stage.served_factors("steady").values()) == {2.0}
    versions = {
        each["number"]: each["state"]
        for each in stage.kube.get("InferenceModel", "steady")["status"]["versions"]
    }
    assert versions == {1: "Promoted", 2: "Failed"}


def test_number_with_other_content_is_refused_even_after_it_was_removed(stage: Stage) -> None:
    stage.set_up()
    first, second = stage.put_model("1.onnx", 2.0), stage.put_model("2.onnx", 3.0)
    model = a_model("reused").with_version(1, first).with_version(2, second)
    stage.apply(model)
    stage.wait_ready("InferenceModel", "reused")
    stage.apply(a_model("reused").with_version(2, second))
    stage.wait_ready("InferenceModel", "reused")
    other = stage.put_model("other.onnx", 9.0)
    stage.apply(a_model("reused").with_version(2, second).with_version(1, other))
    stage.wait_condition("InferenceModel", "reused", "Stalled", "True", reason="VersionReused")
    assert set(stage.served_factors("reused").values()) == {3.0}


def set_up_rivals(stage: Stage) -> None:
    """Have a model "older" (2.0) served as "shared", and one "newer" (3.0) that it keeps out."""
    stage.set_up()
    older = a_model("older").named_in_triton("shared").with_version(1, stage.put_model("1.onnx", 2.0))
    newer = a_model("newer").named_in_triton("shared").with_version(1, stage.put_model("2.onnx", 3.0))
    stage.apply(older)
    stage.wait_ready("InferenceModel", "older")
    stage.apply(newer)
    stage.wait_condition("InferenceModel", "newer", "Stalled", "True", reason="ModelNameTaken")


def test_older_of_two_models_with_one_triton_name_keeps_it(stage: Stage) -> None:
    set_up_rivals(stage)
    assert "older" in stage.message("InferenceModel", "newer", "Stalled")
    assert set(stage.served_factors("shared").values()) == {2.0}
    stage.kube.delete("InferenceModel", "older")
    stage.wait_ready("InferenceModel", "newer")
    # A pod may still be leaving: for a moment no model was published, and the server had no pods.
    assert set(stage.served_factors("shared", pods=stage.in_service()).values()) == {3.0}


@pytest.fixture
def held_jobs(stage: Stage) -> Iterator[None]:
    stage.kubelet.switches.hold_jobs = True
    yield
    stage.kubelet.switches.hold_jobs = False


@pytest.mark.usefixtures("held_jobs")
@pytest.mark.parametrize("misfortune", ["evict", "lose_node_of"])
def test_job_that_is_lost_is_tried_again(stage: Stage, misfortune: str) -> None:
    stage.set_up()
    uri = stage.put_model("lost.onnx", 2.0)
    stage.apply(a_model("lost").with_version(1, uri, sha256=stage.sha256("lost.onnx")))

    def job_runs() -> None:
        (pod,) = stage.kube.list("Pod", "app.kubernetes.io/component=prepare")
        assert pod["status"]["phase"] == "Running"

    eventually(job_runs, because=stage.explain)
    (pod,) = stage.kubelet.pods(stage.kube.namespace, "prepare")
    getattr(stage.kubelet, misfortune)(pod)
    stage.kubelet.switches.hold_jobs = False

    def told() -> None:
        (version,) = stage.kube.get("InferenceModel", "lost")["status"]["versions"]
        assert version["reason"] in ("Evicted", "PodLost"), version
        assert stage.kube.condition("InferenceModel", "lost", "Stalled")[0] != "True"

    eventually(told, because=stage.explain)
    stage.wait_ready("InferenceModel", "lost")
    (engine,) = stage.kube.list("Engine")
    assert engine["status"]["attempt"] == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
def test_full_volume_is_told_and_the_build_goes_on_when_there_is_room(stage: Stage) -> None:
    stage.set_up()
    stage.kube.delete("ModelRepository", "default")
    stage.wait_gone("ModelRepository", "default")
    stage.apply(a_claim("small", annotations={TMPFS_SIZE: "256k"}), a_repository().on_claim("small"))
    stage.wait_ready("ModelRepository", "default")
    volume = stage.kubelet.volume(stage.kube.namespace, "small")
    (volume / "ballast").write_bytes(b"x" * 200_000)
    stage.apply(a_model("big").with_version(1, stage.put_model("big.onnx", 2.0)))

    def told() -> None:
        (version,) = stage.kube.get("InferenceModel", "big")["status"]["versions"]
        assert version["reason"] == "VolumeFull", version
        assert stage.kube.condition("InferenceModel", "big", "Stalled")[0] != "True"

    eventually(told, within=60, because=stage.explain)
    assert [entry.name for entry in (volume / "store").iterdir()] == [], (
        "nothing half-written is in the store"
    )
    subprocess.run(["mount", "-o", "remount,size=64m", str(volume)], check=True)
    stage.wait_ready("InferenceModel", "big")


def test_new_release_does_not_wait_for_a_model_that_another_keeps_out(stage: Stage) -> None:
    set_up_rivals(stage)
    image = "triton-operator/triton-cpu:24.11-py3"
    stage.kube.patch("TritonServer", "default", {"spec": {"image": image}})
    stage.wait_ready("TritonServer", "default")
    stage.wait_ready("InferenceModel", "older")
    assert set(stage.served_factors("shared", pods=stage.in_service()).values()) == {2.0}
