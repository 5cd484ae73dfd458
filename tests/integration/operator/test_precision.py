"""Precision is put into the model before it is served, and what that costs decides whether it is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto
from tests.builders import a_model
from tests.integration.operator.stage import uri_of
from tests.onnx_models import SIZE, write_cancelling, write_dense

if TYPE_CHECKING:
    from tests.integration.operator.stage import Stage

ONES = np.ones((1, SIZE), np.float32)


def put_calibration(stage: Stage, name: str, **arrays: Any) -> str:
    """Put an .npz file among the sources, and return its URI."""
    np.savez(stage.sources() / name, **arrays)
    return uri_of(name)


def real_inputs(count: int = 8) -> Any:
    return np.random.default_rng(1).normal(size=(count, SIZE)).astype(np.float32)


def engine_of(stage: Stage, number: int) -> str:
    """Return the engine of a version of the model `exact`."""
    versions = stage.kube.get("InferenceModel", "exact")["status"]["versions"]
    (name,) = next(each["engines"] for each in versions if each["number"] == number)
    return str(name)


def figures(stage: Stage, engine: str) -> dict[str, Any]:
    """Return what the report of an engine tells of its precision."""
    report = json.loads((stage.volume() / "store" / engine / "report.json").read_text())
    found: dict[str, Any] = report["precision"]
    return found


def test_one_source_is_served_in_fp32_fp16_and_int8(stage: Stage) -> None:
    stage.set_up()
    source = write_dense(stage.sources() / "dense.onnx")
    calibration = {"uri": put_calibration(stage, "calibration.npz", x=real_inputs())}
    builds = {1: None, 2: {"precision": "FP16"}, 3: {"precision": "INT8", "calibration": calibration}}
    model = a_model("exact")
    for number, build in builds.items():
        model = model.with_version(number, uri_of("dense.onnx"), build=build)
    stage.apply(model)
    stage.wait_ready("InferenceModel", "exact")

    (expected,) = onnxruntime.InferenceSession(source).run(None, {"x": ONES})
    (pod,) = stage.tritons()
    errors = {n: np.abs(stage.answer(pod, "exact", version=n)[1] - expected[0]).max() for n in builds}
    assert errors[1] == 0
    assert 0 < errors[2] < errors[3] < 0.1

    engines = {number: engine_of(stage, number) for number in builds}
    assert len(set(engines.values())) == 3
    for number, asked in ((2, "FP16"), (3, "INT8")):
        found = figures(stage, engines[number])
        assert found["asked"] == asked
        assert found["outputs"]["y"]["cosine"] > 0.999
        assert stage.kube.get("Engine", engines[number])["spec"]["build"]["precision"] == asked
    assert figures(stage, engines[3])["calibration"] == {"samples": 8, "generated": False}
    half, eighth = (onnx.load(stage.volume() / "store" / engines[n] / "model.onnx").graph for n in (2, 3))
    assert {t.data_type for t in half.initializer} == {TensorProto.FLOAT16}
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in eighth.node}


def test_a_loss_beyond_the_check_stalls_with_figures_until_the_check_allows_it(stage: Stage) -> None:
    stage.set_up()
    write_cancelling(stage.sources() / "cancelling.onnx")
    build = {"precision": "INT8", "calibration": {"generated": True}}
    model = a_model("exact").with_version(1, uri_of("cancelling.onnx"), build=build)
    stage.apply(model)
    stage.wait_condition("InferenceModel", "exact", "Stalled", "True", reason="AccuracyLost")
    message = stage.message("InferenceModel", "exact")
    for words in ("output 'y' has lowest cosine", "below check.minimumCosine 0.99", "or lower"):
        assert words in message, message
    assert not list((stage.volume() / "store").iterdir())
    stage.apply(model.with_minimum_cosine("0"))
    stage.wait_ready("InferenceModel", "exact")
    assert stage.kube.get("Engine", engine_of(stage, 1))["spec"]["minimumCosine"] == "0"


def test_calibration_data_that_does_not_fit_is_read_again_once_it_is_mended(stage: Stage) -> None:
    stage.set_up()
    write_dense(stage.sources() / "dense.onnx")
    calibration = {"uri": put_calibration(stage, "calibration.npz", wrong=real_inputs())}
    build = {"precision": "INT8", "calibration": calibration}
    stage.apply(a_model("exact").with_version(1, uri_of("dense.onnx"), build=build))
    stage.wait_condition("InferenceModel", "exact", "Stalled", "True", reason="InvalidCalibration")
    assert "lacks x and holds wrong, no input of the model" in stage.message("InferenceModel", "exact")
    put_calibration(stage, "calibration.npz", x=real_inputs())
    stage.wait_ready("InferenceModel", "exact")
