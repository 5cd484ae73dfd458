"""TensorRT engines: one prepared model, a plan for each GPU, compiled by the real TensorRT for RTX.

Plans run on GPUs alone. Here the Triton double reads their headers, and answers by the model behind them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from tests.builders import a_claim, a_model, a_repository, a_server
from tests.integration.operator.stage import SOURCES, uri_of
from tests.onnx_models import SIZE, write_dense

from engine_builder.compilers import plan_header

if TYPE_CHECKING:
    from tests.builders import ModelBuilder
    from tests.integration.operator.stage import Stage

Object = dict[str, Any]

A10 = {"product": "NVIDIA-A10", "computeCapability": "8.6", "memoryMiB": 23028}
L4 = {"product": "NVIDIA-L4", "computeCapability": "8.9", "memoryMiB": 23034}


def set_up(stage: Stage, **servers: Object) -> None:
    """Apply what a model needs, with a server for each of these GPUs."""
    stage.apply(a_claim(SOURCES), a_repository())
    for name, gpu in servers.items():
        stage.apply(a_server(name).with_spec(gpu=gpu))
    stage.sources()


def a_tensorrt_model(name: str, *servers: str) -> ModelBuilder:
    return a_model(name).with_spec(backend="TensorRT").with_servers(*(servers or ("default",)))


def engines(stage: Stage) -> dict[str, Object]:
    return {each["metadata"]["name"]: each for each in stage.kube.list("Engine")}


def jobs(stage: Stage, component: str) -> list[str]:
    found = stage.kube.list("Job", f"app.kubernetes.io/component={component}")
    return sorted(each["metadata"]["labels"]["triton-operator.io/engine"] for each in found)


def test_model_is_prepared_once_and_compiled_for_the_gpu_of_each_server(stage: Stage) -> None:
    set_up(stage, a10=A10, l4=L4)
    stage.apply(a_tensorrt_model("text", "a10", "l4").with_version(1, stage.put_model("1.onnx", 2.0)))
    stage.wait_ready("InferenceModel", "text")
    assert set(stage.served_factors("text").values()) == {2.0}
    found = engines(stage)
    prepared = [name for name, each in found.items() if "source" in each["spec"]]
    compiled = {
        each["spec"]["target"]["product"]: name for name, each in found.items() if "from" in each["spec"]
    }
    assert (len(prepared), compiled.keys()) == (1, {"NVIDIA-A10", "NVIDIA-L4"})
    assert jobs(stage, "prepare") == prepared
    assert jobs(stage, "compile") == sorted(compiled.values())
    for name in compiled.values():
        assert found[name]["spec"]["from"] == prepared[0]
        assert found[name]["status"]["usedBy"] == ["text/1"]
        plan = stage.volume() / "store" / name / "model.plan"
        header = plan_header.read(plan.read_bytes()[: plan_header.SIZE])
        assert header.size == plan.stat().st_size
    version = stage.kube.get("InferenceModel", "text")["status"]["versions"][0]
    assert {check["engine"] for check in version["checks"]} == set(compiled.values())
    assert set(version["engines"]) == found.keys()


def test_second_version_is_compiled_tried_and_promoted_beside_the_first(stage: Stage) -> None:
    set_up(stage, default=A10)
    model = a_tensorrt_model("text").with_version(1, stage.put_model("1.onnx", 2.0))
    stage.apply(model)
    stage.wait_ready("InferenceModel", "text")
    with stage.asked({"text": (2.0, 3.0)}):
        stage.apply(model.with_version(2, stage.put_model("2.onnx", 3.0)))
        stage.wait_ready("InferenceModel", "text")
    assert set(stage.served_factors("text").values()) == {3.0}
    turns = [reason for version, reason in stage.story("text") if version == 2]
    assert turns == ["Building", "Candidate", "Promoted", "Served"]


def test_second_model_of_the_same_content_is_served_without_a_job_on_a_gpu(stage: Stage) -> None:
    set_up(stage, default=A10)
    uri = stage.put_model("1.onnx", 2.0)
    stage.apply(a_tensorrt_model("text").with_version(1, uri))
    stage.wait_ready("InferenceModel", "text")
    before = engines(stage).keys()
    stage.apply(a_tensorrt_model("copy").with_version(7, uri))
    stage.wait_ready("InferenceModel", "copy")
    assert engines(stage).keys() == before
    assert len(jobs(stage, "compile")) == 1


def test_own_samples_are_compared_with_the_sources_answers_at_every_precision(stage: Stage) -> None:
    set_up(stage, default=A10)
    write_dense(stage.sources() / "dense.onnx")
    rows = np.random.default_rng(1).normal(size=(8, SIZE)).astype(np.float32)
    for name, array in (("seen", rows), ("unseen", 100 * rows)):
        np.savez(stage.sources() / f"{name}.npz", x=array)
    int8 = {"precision": "INT8", "calibration": {"uri": uri_of("seen.npz")}}
    near = a_tensorrt_model("near").with_version(1, uri_of("dense.onnx"), build={"precision": "FP16"})
    stage.apply(near.with_version(2, uri_of("dense.onnx"), build=int8).with_samples(uri_of("seen.npz")))
    stage.wait_ready("InferenceModel", "near")
    for version in stage.kube.get("InferenceModel", "near")["status"]["versions"]:
        (check,) = version["checks"]
        assert check["message"].endswith("8 of them your own")
        assert float(check["cosine"]) > 0.99
        assert float(check["maxError"]) > 0, "compared with its own answers"

    # Beyond what it was calibrated on the plan cuts numbers off, and the source does not.
    far = a_tensorrt_model("far").with_version(1, uri_of("dense.onnx"), build=int8)
    stage.apply(far.with_samples(uri_of("unseen.npz")))
    stage.wait_condition("InferenceModel", "far", "Stalled", "True", reason="WrongAnswers")
    assert len(jobs(stage, "compile")) == 2


def test_server_without_a_gpu_says_what_the_model_needs(stage: Stage) -> None:
    stage.set_up()
    stage.apply(a_tensorrt_model("text").with_version(1, stage.put_model("1.onnx", 2.0)))
    stage.wait_condition("InferenceModel", "text", "Stalled", "True", reason="NeedsGpu")
    assert "spec.gpu" in stage.message("InferenceModel", "text", "Stalled")


def test_new_release_has_its_engines_before_any_pod_changes(stage: Stage) -> None:
    set_up(stage, default=A10)
    model = a_tensorrt_model("text").with_version(1, stage.put_model("1.onnx", 2.0))
    stage.apply(model.with_version(2, stage.put_model("2.onnx", 3.0)))
    stage.wait_ready("InferenceModel", "text")
    stage.kubelet.switches.hold_jobs = True
    try:
        with stage.asked({"text": (3.0,), "text/1": (2.0,)}):
            image = "triton-operator/triton-cpu:24.11-py3"
            stage.kube.patch("TritonServer", "default", {"spec": {"image": image}})
            stage.wait_condition("TritonServer", "default", "Reconciling", "True", reason="BuildingRelease")
            assert "text/1" in stage.message("TritonServer", "default")
            stage.kubelet.switches.hold_jobs = False
            stage.wait_ready("TritonServer", "default")
            stage.wait_ready("InferenceModel", "text")
    finally:
        stage.kubelet.switches.hold_jobs = False
    (deployment,) = stage.kube.list("Deployment", "triton-operator.io/server=default")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert labels["triton-operator.io/release"] == "24.11"
    assert len(jobs(stage, "compile")) == 4
