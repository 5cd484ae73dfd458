from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.unit.engine_builder.models import (
    ENGINE,
    KEY,
    LIGHT,
    a_constant,
    a_model,
    an_engine,
    saved,
    saved_with_external_data,
    value,
)

from engine_builder import job, onnx_model, prepare, reference_file, runtime, store
from engine_builder.contract import Reason, Report, Tensor, from_json
from engine_builder.prepare import PrepareRequest
from engine_builder.progress import Progress

if TYPE_CHECKING:
    from engine_builder.volume import Layout


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Examine without a child process: this one has threads already, and the child is tested below."""
    monkeypatch.setattr(prepare, "isolated", lambda function, *args: function(*args))


def _prepare(layout: Layout, path: Path, *, uid: str = "uid-1", **kwargs: Any) -> Report:
    log = layout.root.parent / "termination-log"
    progress = Progress(quiet=True)
    request = PrepareRequest(layout.root, ENGINE, KEY, str(path), uid, **kwargs)
    code = job.run_job(
        lambda: prepare.prepare(request, progress), engine=ENGINE, progress=progress, termination_log=log
    )
    report = from_json(Report, log.read_text())
    assert code == report.exit_code
    assert list(layout.staging.iterdir()) == [], "the attempt left something"
    return report


def test_light_squeezenet_becomes_an_engine_with_its_reference(layout: Layout) -> None:
    report = _prepare(layout, LIGHT / "light_squeezenet.onnx")
    assert report.reason is Reason.SUCCEEDED
    assert report.signature is not None
    assert report.signature.inputs == (Tensor("data_0", "FP32", (1, 3, 224, 224)),)
    assert report.signature.outputs == (Tensor("softmaxout_1", "FP32", (1, 1000, 1, 1)),)
    assert set(report.seconds) >= {"fetch", "check", "load", "reference", "store"}
    manifest = store.read_manifest(layout, ENGINE)
    assert manifest is not None
    assert store.damaged_files(layout, manifest) == []
    assert set(manifest.files) == {"model.onnx", "report.json", "reference.npz"}
    assert manifest.size_bytes == report.size_bytes
    assert manifest.sample_shapes == {"data_0": (1, 3, 224, 224)}
    samples = reference_file.load(layout.store / ENGINE / "reference.npz")
    assert [s.outputs["softmaxout_1"].shape for s in samples] == [(1, 1000, 1, 1)] * 3


def test_the_manifest_tells_sizes_that_the_signature_leaves_open(layout: Layout, tmp_path: Path) -> None:
    shape = ("batch", 3, "height", "width")
    model = a_model(inputs=[value("x", shape=shape)], outputs=[value("y", shape=shape)])
    _prepare(layout, saved(model, tmp_path / "m.onnx"))
    manifest = store.read_manifest(layout, ENGINE)
    assert manifest is not None
    assert manifest.signature.inputs[0].shape == (-1, 3, -1, -1)
    assert manifest.sample_shapes == {"x": (1, 3, 224, 224)}


def test_a_model_without_samples_has_no_shapes_of_them(layout: Layout, tmp_path: Path) -> None:
    kind = TensorProto.BFLOAT16
    node = helper.make_node("Identity", ["x"], ["y"])
    _prepare(
        layout,
        saved(a_model([node], inputs=[value("x", kind)], outputs=[value("y", kind)]), tmp_path / "m.onnx"),
    )
    manifest = store.read_manifest(layout, ENGINE)
    assert manifest is not None
    assert manifest.sample_shapes == {}


def test_the_full_report_tells_what_the_model_is(layout: Layout) -> None:
    _prepare(layout, LIGHT / "light_squeezenet.onnx")
    report = json.loads((layout.store / ENGINE / "report.json").read_text())
    assert report["model"]["operators"]["Conv"] == 26
    assert report["model"]["opsets"] == {"ai.onnx": 9}
    assert report["source"]["model"] == "light_squeezenet.onnx"
    assert set(report["versions"]) == {"onnx", "onnxruntime", "engine_builder", "prepare"}
    assert report["samples"] == 3


def test_a_model_with_external_data_is_complete_in_the_store(layout: Layout, tmp_path: Path) -> None:
    path = saved_with_external_data(tmp_path / "source", "weights/w.bin")
    report = _prepare(layout, path)
    assert report.reason is Reason.SUCCEEDED
    sample = reference_file.load(layout.store / ENGINE / "reference.npz")[0]
    np.testing.assert_allclose(sample.outputs["y"], sample.inputs["x"] + np.arange(4, dtype=np.float32))
    assert (layout.store / ENGINE / "weights/w.bin").is_file()


def test_a_second_attempt_finds_the_engine_and_reads_no_source(layout: Layout, tmp_path: Path) -> None:
    path = saved(a_model(), tmp_path / "m.onnx")
    first = _prepare(layout, path)
    path.unlink()
    second = _prepare(layout, path, uid="uid-2")
    assert second.reason is Reason.SUCCEEDED
    assert (second.sha256, second.signature, second.size_bytes) == (
        first.sha256,
        first.signature,
        first.size_bytes,
    )


def test_an_attempt_that_was_overtaken_succeeds(layout: Layout, tmp_path: Path, monkeypatch: Any) -> None:
    path = saved(a_model(), tmp_path / "m.onnx")
    real = prepare.examine

    def slow(*args: Any) -> Any:
        an_engine(layout, content=b"of the other")
        return real(*args)

    monkeypatch.setattr(prepare, "examine", slow)
    assert _prepare(layout, path).reason is Reason.SUCCEEDED
    assert (layout.store / ENGINE / "model.onnx").read_bytes() == b"of the other"


def _unsupported() -> Any:
    return a_model([helper.make_node("Foo", ["x"], ["y"], domain="acme")], opsets=[("", 17), ("acme", 1)])


def _sequence() -> Any:
    output = helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)
    return a_model([helper.make_node("SequenceConstruct", ["x"], ["y"])], outputs=[output])


@pytest.mark.parametrize(
    ("content", "kwargs", "reason"),
    [
        (b"not a model", {}, Reason.INVALID_MODEL),
        (_unsupported().SerializeToString(), {}, Reason.UNSUPPORTED_OPERATOR),
        (_sequence().SerializeToString(), {}, Reason.INVALID_MODEL),
        (a_model().SerializeToString(), {"sha256": "0" * 64}, Reason.DIGEST_MISMATCH),
        (a_model().SerializeToString(), {"max_bytes": 10}, Reason.SOURCE_TOO_LARGE),
        (None, {}, Reason.SOURCE_NOT_FOUND),
    ],
)
def test_a_users_fault_ends_the_job_for_good_and_leaves_nothing(
    layout: Layout, tmp_path: Path, content: bytes | None, kwargs: Any, reason: Reason
) -> None:
    path = tmp_path / "m.onnx"
    if content is not None:
        path.write_bytes(content)
    report = _prepare(layout, path, **kwargs)
    assert (report.reason, report.exit_code) == (reason, 10)
    assert len(report.message) > 20
    assert "Traceback" not in report.message
    assert store.list_engines(layout) == []


def test_a_volume_without_room_is_a_passing_fault_with_figures(small_volume: Layout, tmp_path: Path) -> None:
    weights = a_constant("w", np.zeros((1, 2 << 20), np.float32))
    model = a_model(
        [helper.make_node("Identity", ["w"], ["k"]), helper.make_node("Relu", ["x"], ["y"])],
        initializers=[weights],
    )
    report = _prepare(small_volume, saved(model, tmp_path / "m.onnx"))
    assert (report.reason, report.exit_code) == (Reason.VOLUME_FULL, 20)
    assert "4.0Mi free" in report.message
    assert list(small_volume.store.iterdir()) == []


def test_a_volume_that_fills_up_in_the_middle_is_the_same(small_volume: Layout, tmp_path: Path) -> None:
    """The source fits, its reference answers do not."""
    model = a_model(inputs=[value("x", shape=(1, 400_000))], outputs=[value("y", shape=(1, 400_000))])
    report = _prepare(small_volume, saved(model, tmp_path / "m.onnx"))
    assert (report.reason, report.exit_code) == (Reason.VOLUME_FULL, 20)
    assert list(small_volume.store.iterdir()) == []


@pytest.mark.parametrize("number", [5, 30, 116])
def test_a_failing_volume_is_a_passing_fault(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(_fd: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    report = _prepare(layout, saved(a_model(), tmp_path / "m.onnx"))
    assert (report.reason, report.exit_code) == (Reason.VOLUME_ERROR, 20)
    assert store.list_engines(layout) == []


def test_an_error_of_ours_is_one_line_and_passing(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(prepare, "examine", lambda *_args: 1 // 0)
    report = _prepare(layout, saved(a_model(), tmp_path / "m.onnx"))
    assert (report.reason, report.exit_code) == (Reason.INTERNAL_ERROR, 20)
    assert "\n" not in report.message
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["light_resnet50", "light_squeezenet"])
def test_the_stored_model_answers_what_the_wheel_ships(layout: Layout, name: str) -> None:
    """The wheel's input is a ramp from 0 to 1; its expected output lies beside the model."""
    _prepare(layout, LIGHT / f"{name}.onnx")
    expected = TensorProto.FromString((LIGHT / f"{name}_output_0.pb").read_bytes())
    path = layout.store / ENGINE / "model.onnx"
    session = runtime.open_session(path, onnx_model.parse(path))
    ramp = np.arange(3 * 224 * 224).reshape(1, 3, 224, 224) / (3 * 224 * 224)
    found = session.run(None, {session.get_inputs()[0].name: ramp.astype(np.float32)})[0]
    np.testing.assert_allclose(found, numpy_helper.to_array(expected), rtol=1e-3, atol=1e-7)
