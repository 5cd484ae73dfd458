"""OpenVINO engines: converted once from the prepared model by a Job on a CPU; the real OpenVINO answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf import text_format
from tests.onnx_models import write_dense
from tritonclient.grpc import model_config_pb2

if TYPE_CHECKING:
    from tests.builders import ModelBuilder
    from tests.integration.operator.stage import Stage

Object = dict[str, Any]


def an_openvino_model(stage: Stage, name: str, factor: float) -> ModelBuilder:
    return stage.a_model(name, factor, backend="OpenVINO")


def engines(stage: Stage) -> dict[str, Object]:
    """Return the Engines by backend."""
    return {each["spec"]["backend"]: each for each in stage.kube.list("Engine")}


def config(stage: Stage, name: str) -> Any:
    text = (stage.tree() / name / "config.pbtxt").read_text()
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def test_model_is_prepared_then_converted_then_served(stage: Stage) -> None:
    stage.set_up(replicas=2)
    stage.apply(an_openvino_model(stage, "text", 2.0))
    stage.wait_ready("InferenceModel", "text")
    stage.wait_factors("text", 2.0, 2.0)
    found = engines(stage)
    assert found.keys() == {"ONNXRuntime", "OpenVINO"}
    converted, prepared = found["OpenVINO"], found["ONNXRuntime"]
    assert converted["spec"]["from"] == prepared["metadata"]["name"]
    assert {"target", "release", "compile"}.isdisjoint(converted["spec"])
    assert (converted["status"]["target"], converted["status"]["precision"]) == ("cpu", "FP32")
    assert converted["status"]["usedBy"] == ["text/1"]
    entry = stage.volume() / "store" / converted["metadata"]["name"]
    assert {"model.xml", "model.bin"} <= {path.name for path in entry.iterdir()}
    version = stage.kube.get("InferenceModel", "text")["status"]["versions"][0]
    assert [check["engine"] for check in version["checks"]] == [converted["metadata"]["name"]]
    assert version["checks"][0]["reason"] == "Succeeded"
    (job,) = stage.kube.list("Job", "app.kubernetes.io/component=convert")
    assert job["metadata"]["labels"]["triton-operator.io/engine"] == converted["metadata"]["name"]


def test_second_version_is_tried_and_promoted_beside_the_first(stage: Stage) -> None:
    stage.set_up()
    model = an_openvino_model(stage, "text", 2.0)
    stage.apply(model)
    stage.wait_ready("InferenceModel", "text")
    with stage.asked({"text": (2.0, 3.0)}):
        stage.apply(model.with_version(2, stage.put_model("text-2.onnx", 3.0)))
        stage.wait_ready("InferenceModel", "text")
    stage.wait_factors("text", 3.0)


def test_batch_is_free_until_requests_are_to_be_put_together(stage: Stage) -> None:
    stage.set_up()
    model = an_openvino_model(stage, "text", 2.0)
    stage.apply(model)
    stage.wait_ready("InferenceModel", "text")
    found = config(stage, "text")
    assert (found.backend, found.max_batch_size, list(found.input[0].dims)) == ("openvino", 0, [-1, 4])
    stage.apply(model.with_serving(dynamicBatching={}))
    stage.wait_condition("InferenceModel", "text", "Ready", "True")
    found = config(stage, "text")
    assert (found.max_batch_size, list(found.input[0].dims)) == (16, [4])
    assert found.parameters["ENABLE_BATCH_PADDING"].string_value == "YES"


def test_precision_is_that_of_the_prepared_engine(stage: Stage) -> None:
    stage.set_up()
    write_dense(stage.sources() / "dense.onnx", size=4)
    model = an_openvino_model(stage, "text", 2.0)
    stage.apply(model.with_version(1, "pvc://sources/dense.onnx", build={"precision": "FP16"}))
    stage.wait_ready("InferenceModel", "text")
    found = engines(stage)
    assert {each["status"]["precision"] for each in found.values()} == {"FP16"}


def test_model_that_openvino_refuses_says_why(stage: Stage) -> None:
    stage.set_up()
    model = an_openvino_model(stage, "text", 2.0)
    write_double(stage)
    stage.apply(model.with_version(1, "pvc://sources/double.onnx"))
    stage.wait_condition("InferenceModel", "text", "Stalled", "True", reason="UnsupportedOperator")
    assert "tensor 'x': its type is f64" in stage.message("InferenceModel", "text", "Stalled")


def write_double(stage: Stage) -> None:
    """Put a model of FP64 among the sources."""
    import onnx
    from onnx import TensorProto, helper

    tensors = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, ["batch", 4]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "double", tensors[:1], tensors[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, stage.sources() / "double.onnx")
