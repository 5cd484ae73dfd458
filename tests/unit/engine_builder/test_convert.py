"""The convert job with the real OpenVINO: what it writes answers as the ONNX does, or a reason says why not.

Every conversion is a command of its own, as in a pod.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import openvino
import pytest
from onnx import TensorProto, helper
from tests.unit.engine_builder.models import KEY, LIGHT, a_constant, a_model, value
from tests.unit.engine_builder.onnx_for_tensorrt import (
    PREPARED,
    SIZE,
    a_matmul,
    a_prepared,
    a_quantised_matmul,
    an_image_model,
    weights,
)

from engine_builder import store
from engine_builder.contract import Reason, Report, from_json

if TYPE_CHECKING:
    import onnx

    from engine_builder.volume import Layout

ENGINE = "openvino-0123456789abcdef"


def _convert(layout: Layout, key: str = KEY) -> Report:
    log = layout.root.parent / "termination-log"
    command = [
        *(sys.executable, "-m", "engine_builder", "convert", "--repository", str(layout.root)),
        *("--engine", ENGINE, "--key", key, "--from", PREPARED, "--staging-uid", "uid-1"),
        *("--termination-log", str(log)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    report = from_json(Report, log.read_text())
    assert done.returncode == report.exit_code, done.stderr
    assert list(layout.staging.iterdir()) == [], "the attempt left something"
    return report


def _refused(layout: Layout, model: onnx.ModelProto) -> Report:
    a_prepared(layout, model)
    report = _convert(layout)
    assert report.reason is Reason.UNSUPPORTED_OPERATOR
    assert "backend ONNXRuntime" in report.message
    assert store.list_engines(layout) == [PREPARED]
    return report


def _answers(layout: Layout, **inputs: np.ndarray[Any, Any]) -> tuple[list[Any], list[Any]]:
    """Return what OpenVINO answers, and what onnxruntime does."""
    exact = {"INFERENCE_PRECISION_HINT": "f32"}  # where a CPU has bfloat16, OpenVINO uses it unasked
    compiled = openvino.Core().compile_model(layout.store / ENGINE / "model.xml", "CPU", exact)
    session = onnxruntime.InferenceSession(str(layout.store / PREPARED / "model.onnx"))
    names = [node.name for node in session.get_outputs()]
    answers = compiled(inputs)
    return [np.array(answers[name]) for name in names], session.run(names, inputs)


def _inputs(**shapes: tuple[int, ...]) -> dict[str, np.ndarray[Any, Any]]:
    random = np.random.default_rng(7)
    return {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def test_a_prepared_engine_becomes_one_of_openvino_with_the_answers_of_its_source(layout: Layout) -> None:
    prepared = a_prepared(layout, a_matmul())
    report = _convert(layout)
    assert report.reason is Reason.SUCCEEDED, report.message
    assert f"OpenVINO {openvino.get_version().partition('-')[0]} " in report.message
    manifest = store.read_manifest(layout, ENGINE)
    assert manifest is not None
    assert store.damaged_files(layout, manifest) == []
    assert set(manifest.files) == {"model.xml", "model.bin", "report.json", "reference.npz"}
    assert manifest.files["reference.npz"] == prepared.files["reference.npz"]
    assert (manifest.prepared, manifest.signature) == (PREPARED, prepared.signature)
    assert (manifest.source_sha256, manifest.sample_shapes, manifest.tensorrt) == (
        prepared.source_sha256,
        prepared.sample_shapes,
        "",
    )
    for batch in (1, 5):
        found, wanted = _answers(layout, **_inputs(x=(batch, SIZE)))
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_the_report_names_what_was_used(layout: Layout) -> None:
    a_prepared(layout, a_matmul())
    _convert(layout)
    report = json.loads((layout.store / ENGINE / "report.json").read_text())
    assert report["from"] == PREPARED
    assert report["versions"]["openvino"] == openvino.get_version()
    assert {"import", "convert", "load"} <= report["seconds"].keys()


def test_what_is_there_is_not_converted_again(layout: Layout) -> None:
    a_prepared(layout, a_matmul())
    _convert(layout)
    before = (layout.store / ENGINE / "model.xml").stat().st_mtime_ns
    assert "already" in _convert(layout).message
    assert (layout.store / ENGINE / "model.xml").stat().st_mtime_ns == before


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.FLOAT16])
def test_the_numbers_stay_as_they_were_prepared(layout: Layout, kind: int) -> None:
    a_prepared(layout, a_matmul(kind, size=64))
    report = _convert(layout)
    assert report.reason is Reason.SUCCEEDED, report.message
    weights_bytes = (layout.store / ENGINE / "model.bin").stat().st_size
    assert weights_bytes == 64 * 64 * (4 if kind == TensorProto.FLOAT else 2)


def test_quantised_models_answer_alike(layout: Layout) -> None:
    a_prepared(layout, a_quantised_matmul())
    assert _convert(layout).reason is Reason.SUCCEEDED
    found, wanted = _answers(layout, **_inputs(x=(1, SIZE)))
    np.testing.assert_allclose(found, wanted, atol=0.1)


def test_free_dimensions_stay_free(layout: Layout) -> None:
    a_prepared(layout, an_image_model())
    report = _convert(layout)
    assert report.signature is not None
    assert report.signature.inputs[0].shape == (-1, 3, -1, -1)
    for shape in ((1, 3, 8, 8), (2, 3, 16, 4)):
        found, wanted = _answers(layout, **_inputs(images=shape))
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("net", ["light_squeezenet.onnx", "light_shufflenet.onnx"])
def test_nets_of_the_onnx_wheel_are_converted(layout: Layout, net: str) -> None:
    import onnx

    a_prepared(layout, onnx.load(LIGHT / net))
    report = _convert(layout)
    assert report.reason is Reason.SUCCEEDED, report.message


def test_a_tensor_has_one_name_the_one_that_it_has_in_onnx(layout: Layout) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Identity", ["m"], ["same"]),
        helper.make_node("Relu", ["same"], ["y"]),
        helper.make_node("Identity", ["y"], ["z"]),
    ]
    shape = ("N", SIZE)
    model = a_model(
        nodes,
        inputs=[value("x", shape=shape)],
        outputs=[value("z", shape=shape)],
        initializers=[a_constant("w", weights(SIZE, SIZE))],
    )
    a_prepared(layout, model)
    assert _convert(layout).reason is Reason.SUCCEEDED
    network = openvino.Core().read_model(layout.store / ENGINE / "model.xml")
    assert [port.get_names() for port in (*network.inputs, *network.outputs)] == [{"x"}, {"z"}]


def test_types_that_the_backend_does_not_serve_are_refused_by_name(layout: Layout) -> None:
    model = a_model(
        inputs=[value("x", TensorProto.DOUBLE)], outputs=[value("y", TensorProto.DOUBLE)], opsets=(("", 17),)
    )
    assert "tensor 'x': its type is f64" in _refused(layout, model).message


def test_an_input_without_dimensions_is_refused_by_name(layout: Layout) -> None:
    model = a_model(inputs=[value("x", shape=())], outputs=[value("y", shape=())])
    assert "tensor 'x': its shape is []" in _refused(layout, model).message


def test_an_operator_that_openvino_lacks_is_refused_with_its_words(layout: Layout) -> None:
    nodes = [helper.make_node("Det", ["x"], ["y"], name="determinant")]
    model = a_model(nodes, inputs=[value("x", shape=(2, 2))], outputs=[value("y", shape=())])
    message = _refused(layout, model).message
    assert "Det" in message
    assert "src/" not in message


def test_a_prepared_engine_that_is_missing_is_waited_for(layout: Layout) -> None:
    report = _convert(layout)
    assert (report.reason, int(report.exit_code)) == (Reason.ENGINE_MISSING, 20)


def test_a_full_volume_is_called_so(small_volume: Layout) -> None:
    a_prepared(small_volume, a_matmul(size=600))
    (small_volume.root / "filler").write_bytes(bytes(2 << 20))
    assert _convert(small_volume).reason is Reason.VOLUME_FULL
    assert store.list_engines(small_volume) == [PREPARED]
