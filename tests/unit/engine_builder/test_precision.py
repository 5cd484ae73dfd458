"""Models are given another precision by the prepare job, and what that costs is measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.onnx_models import write_cancelling
from tests.unit.engine_builder.models import ENGINE, KEY, LIGHT, a_model, saved, value
from tests.unit.engine_builder.nets import (
    a_chain,
    a_half_net,
    an_overflowing_net,
    calibration_file,
    images,
    saved_net,
    saved_with_weights_beside,
)

from engine_builder import job, onnx_model, prepare, reference_file, runtime, samples, store
from engine_builder.contract import Precision, Reason, Report, Tensor, from_json
from engine_builder.fetch import SingleFile
from engine_builder.precision import Conversion
from engine_builder.prepare import PrepareRequest
from engine_builder.progress import Progress

if TYPE_CHECKING:
    from engine_builder.volume import Layout

FP16 = Conversion(Precision.FP16)
MADE_UP = Conversion(Precision.INT8, generated=True)


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convert without a child process: this one has threads already; the command line is tested below."""
    for module in (prepare, samples):
        monkeypatch.setattr(module, "isolated", lambda function, *args, **kwargs: function(*args, **kwargs))


def calibrated_on(path: Path, **kwargs: Any) -> Conversion:
    file = SingleFile(str(path), Path("/"), field="build.calibration", max_bytes=1 << 20, **kwargs)
    return Conversion(Precision.INT8, calibration=file)


def converted(layout: Layout, path: Path, wanted: Conversion) -> Report:
    log, progress = layout.root.parent / "termination-log", Progress(quiet=True)
    request = PrepareRequest(layout.root, ENGINE, KEY, str(path), "uid-1", conversion=wanted)
    job.run_job(
        lambda: prepare.prepare(request, progress), engine=ENGINE, progress=progress, termination_log=log
    )
    assert list(layout.staging.iterdir()) == [], "the attempt left something"
    return from_json(Report, log.read_text())


def refused(layout: Layout, path: Path, wanted: Conversion) -> Report:
    report = converted(layout, path, wanted)
    assert report.exit_code == 10, report
    assert store.list_engines(layout) == []
    return report


def entry(layout: Layout) -> Path:
    return layout.store / ENGINE


def report_of(layout: Layout) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((entry(layout) / "report.json").read_text())
    return found


def model_of(layout: Layout) -> onnx.ModelProto:
    return onnx.load_model(entry(layout) / "model.onnx")


def ask(path: Path, **inputs: Any) -> list[Any]:
    session = runtime.open_session(path, onnx_model.parse(path))
    return list(session.run(None, inputs))


# -- FP16 ------------------------------------------------------------------------------------------


def test_fp16_halves_the_weights_and_leaves_what_clients_see(layout: Layout, tmp_path: Path) -> None:
    path = saved_net(tmp_path)
    report = converted(layout, path, FP16)
    assert report.reason is Reason.SUCCEEDED
    assert report.signature is not None
    assert report.signature.inputs == (Tensor("images", "FP32", (-1, 3, 8, 8)),)
    assert report.signature.outputs == (Tensor("scores", "FP32", (-1, 10)),)
    assert {t.data_type for t in model_of(layout).graph.initializer} == {TensorProto.FLOAT16}
    onnx.checker.check_model(str(entry(layout) / "model.onnx"), full_check=True)
    given = images(4)
    before, after = (ask(p, images=given)[0] for p in (path, entry(layout) / "model.onnx"))
    np.testing.assert_allclose(after, before, atol=2e-2)
    assert not np.array_equal(after, before)


def test_the_report_tells_what_was_lost(layout: Layout, tmp_path: Path) -> None:
    report = converted(layout, saved_net(tmp_path), FP16)
    found = report_of(layout)["precision"]
    assert found["asked"] == "FP16"
    assert found["outputs"]["scores"]["cosine"] > 0.9999
    assert 0 < found["outputs"]["scores"]["max_error"] < 0.02
    assert found["peak_memory_bytes"] > 1 << 20
    assert "FP16 against the source: lowest cosine" in report.message


def test_the_source_stays_beside_what_it_became(layout: Layout, tmp_path: Path) -> None:
    path = saved_net(tmp_path)
    converted(layout, path, FP16)
    manifest = store.read_manifest(layout, ENGINE)
    assert manifest is not None
    assert (entry(layout) / ".source/model.onnx").read_bytes() == path.read_bytes()
    assert set(manifest.files) == {"model.onnx", ".source/model.onnx", "report.json", "reference.npz"}
    assert manifest.files[".source/model.onnx"] == manifest.source_sha256
    assert store.damaged_files(layout, manifest) == []


def test_reference_answers_are_the_sources_own(layout: Layout, tmp_path: Path) -> None:
    path = saved_net(tmp_path)
    converted(layout, path, FP16)
    for sample in reference_file.load(entry(layout) / "reference.npz"):
        np.testing.assert_array_equal(ask(path, **sample.inputs)[0], sample.outputs["scores"])


def test_without_keeping_io_the_signature_and_the_reference_are_fp16(layout: Layout, tmp_path: Path) -> None:
    path = saved_net(tmp_path)
    report = converted(layout, path, Conversion(Precision.FP16, keep_io=False))
    assert report.signature is not None
    assert [t.datatype for t in (*report.signature.inputs, *report.signature.outputs)] == ["FP16", "FP16"]
    assert "inputs and outputs are FP16" in report.message
    for sample in reference_file.load(entry(layout) / "reference.npz"):
        given = sample.inputs["images"]
        assert given.dtype == sample.outputs["scores"].dtype == np.float16
        (expected,) = ask(path, images=given.astype(np.float32))
        np.testing.assert_array_equal(expected.astype(np.float16), sample.outputs["scores"])


def test_what_cannot_compute_in_fp16_stays_fp32(layout: Layout, tmp_path: Path) -> None:
    """Celu takes FP32 alone; the nodes around it don't."""
    nodes = [helper.make_node("Neg", ["x"], ["a"]), helper.make_node("Celu", ["a"], ["b"])]
    model = a_chain(*nodes, helper.make_node("Neg", ["b"], ["y"]))
    assert converted(layout, saved(model, tmp_path / "m.onnx"), FP16).reason is Reason.SUCCEEDED
    inferred = onnx.shape_inference.infer_shapes(model_of(layout), strict_mode=True)
    kinds = {v.name: v.type.tensor_type.elem_type for v in inferred.graph.value_info}
    (celu,) = (node for node in inferred.graph.node if node.op_type == "Celu")
    negs = [node for node in inferred.graph.node if node.op_type == "Neg"]
    assert kinds[celu.input[0]] == TensorProto.FLOAT
    assert {kinds[node.input[0]] for node in negs} == {TensorProto.FLOAT16}


def test_numbers_beyond_fp16_lose_the_accuracy_and_name_the_output(layout: Layout, tmp_path: Path) -> None:
    report = refused(layout, saved(an_overflowing_net(), tmp_path / "m.onnx"), FP16)
    assert report.reason is Reason.ACCURACY_LOST
    assert "output 'y' holds NaN or infinity" in report.message
    assert "keep FP32" in report.message


def test_a_loss_that_no_cpu_would_show_is_seen(layout: Layout) -> None:
    """The made-up weights of this net drive inner values beyond 65504: a CPU keeps them in FP32."""
    report = refused(layout, LIGHT / "light_squeezenet.onnx", FP16)
    assert report.reason is Reason.ACCURACY_LOST
    assert "output 'softmaxout_1' holds NaN or infinity" in report.message


def test_weights_beyond_fp16_are_named(layout: Layout, tmp_path: Path) -> None:
    node = helper.make_node("Add", ["x", "mask"], ["y"])
    model = a_chain(node, constants={"mask": np.array([0, 0, 0, -1e9], np.float32)})
    report = converted(layout, saved(model, tmp_path / "m.onnx"), FP16)
    assert "weights beyond the range of FP16 were cut to 65504: mask" in report.message


def test_light_shufflenet_is_served_in_fp16_with_the_wheels_own_answers(layout: Layout) -> None:
    assert converted(layout, LIGHT / "light_shufflenet.onnx", FP16).reason is Reason.SUCCEEDED
    expected = TensorProto.FromString((LIGHT / "light_shufflenet_output_0.pb").read_bytes())
    ramp = (np.arange(3 * 224 * 224).reshape(1, 3, 224, 224) / (3 * 224 * 224)).astype(np.float32)
    (name,) = (t.name for t in model_of(layout).graph.input)
    found = ask(entry(layout) / "model.onnx", **{name: ramp})[0]
    np.testing.assert_allclose(found, numpy_helper.to_array(expected), rtol=1e-2, atol=1e-5)


# -- INT8 ------------------------------------------------------------------------------------------


def test_int8_is_what_tensorrts_parser_takes(layout: Layout, tmp_path: Path) -> None:
    report = converted(layout, saved_net(tmp_path), calibrated_on(calibration_file(tmp_path / "c.npz")))
    assert report.reason is Reason.SUCCEEDED, report
    model = model_of(layout)
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    pairs = [n for n in model.graph.node if n.op_type in {"QuantizeLinear", "DequantizeLinear"}]
    zeros = [constants[node.input[2]] for node in pairs]
    assert {zero.dtype.name for zero in zeros} == {"int8"}
    assert not any(zero.any() for zero in zeros)
    by_channel = {
        node.input[0]: constants[node.input[1]].size for node in pairs if node.input[0] in constants
    }
    assert sorted(by_channel.values()) == [10, 16], "weights of Gemm and Conv, and no bias"
    assert {o.domain for o in model.opset_import} <= {"", "ai.onnx"}
    onnx.checker.check_model(model, full_check=True)


def test_int8_answers_like_the_source_on_data_like_the_calibration(layout: Layout, tmp_path: Path) -> None:
    path = saved_net(tmp_path)
    report = converted(layout, path, calibrated_on(calibration_file(tmp_path / "c.npz")))
    found = report_of(layout)["precision"]
    assert found["calibration"] == {"samples": 12, "generated": False}
    assert 0.99 < found["outputs"]["scores"]["cosine"] < 1
    assert "calibrated on 12 samples" in report.message
    given = images(4, seed=1)
    before, after = (ask(p, images=given)[0].ravel() for p in (path, entry(layout) / "model.onnx"))
    assert before @ after / np.linalg.norm(before) / np.linalg.norm(after) > 0.99


def test_real_inputs_are_the_reference_where_the_user_gave_some(layout: Layout, tmp_path: Path) -> None:
    converted(layout, saved_net(tmp_path), calibrated_on(calibration_file(tmp_path / "c.npz")))
    found = reference_file.load(entry(layout) / "reference.npz")
    assert len(found) == 3
    np.testing.assert_array_equal(np.concatenate([s.inputs["images"] for s in found]), images(12)[:3])


def test_made_up_calibration_says_what_it_is_worth(layout: Layout, tmp_path: Path) -> None:
    report = converted(layout, saved_net(tmp_path), MADE_UP)
    assert report.reason is Reason.SUCCEEDED, report
    assert "16 made-up samples, as asked" in report.message
    assert report_of(layout)["precision"]["calibration"]["generated"] is True


def test_an_old_opset_is_raised_for_int8(layout: Layout, tmp_path: Path) -> None:
    assert converted(layout, saved_net(tmp_path, opset=9), MADE_UP).reason is Reason.SUCCEEDED
    (opset,) = (o.version for o in model_of(layout).opset_import if o.domain in {"", "ai.onnx"})
    assert opset == 13


def test_a_loss_beyond_the_check_stops_the_build_with_figures(layout: Layout, tmp_path: Path) -> None:
    path = write_cancelling(tmp_path / "m.onnx")
    report = refused(layout, path, MADE_UP)
    assert report.reason is Reason.ACCURACY_LOST
    for words in ("output 'y' has lowest cosine", "below check.minimumCosine 0.99", "1 of 1", "set FP16"):
        assert words in report.message
    low = Conversion(Precision.INT8, generated=True, minimum_cosine=-1)
    assert converted(layout, path, low).reason is Reason.SUCCEEDED


def test_int8_without_calibration_says_what_to_give(layout: Layout, tmp_path: Path) -> None:
    report = refused(layout, saved_net(tmp_path), Conversion(Precision.INT8))
    assert report.reason is Reason.INVALID_CALIBRATION
    for words in ("build.calibration.uri", "build.calibration.generated"):
        assert words in report.message


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"pictures": images(2)}, "lacks images and holds pictures, no input of the model"),
        ({"images": images(2).astype(np.float64)}, "images is float64, the model takes float32"),
        ({"images": images(2)[:, :2]}, "images has shape [2, 2, 8, 8], the model takes [any, 3, 8, 8]"),
        ({"images": images(0)}, "give one sample at least"),
        ({"images": np.array([{}], dtype=object)}, "holds Python objects, which only unpickling could read"),
        ({"images": images(1025)}, "more than 1024 samples"),
    ],
)
def test_calibration_data_that_does_not_fit_names_what_would(
    layout: Layout, tmp_path: Path, arrays: Any, words: str
) -> None:
    np.savez(tmp_path / "c.npz", **arrays)
    wanted = calibrated_on(tmp_path / "c.npz")
    report = refused(layout, saved_net(tmp_path), wanted)
    assert report.reason is Reason.INVALID_CALIBRATION
    assert report.message.startswith("build.calibration: ")
    assert words in report.message


def test_calibration_data_is_fetched_as_a_source_is(layout: Layout, tmp_path: Path) -> None:
    path, file = saved_net(tmp_path), calibration_file(tmp_path / "c.npz")
    report = refused(layout, path, calibrated_on(file, sha256="0" * 64))
    assert report.reason is Reason.DIGEST_MISMATCH
    assert "build.calibration.sha256" in report.message
    report = refused(layout, path, calibrated_on(tmp_path / "none.npz"))
    assert report.reason is Reason.SOURCE_NOT_FOUND
    assert "correct build.calibration.uri" in report.message
    (tmp_path / "link.npz").symlink_to(file)
    assert refused(layout, path, calibrated_on(tmp_path / "link.npz")).reason is Reason.UNSAFE_SOURCE
    np.savez(tmp_path / "large.npz", images=images(1024, size=16))
    assert refused(layout, path, calibrated_on(tmp_path / "large.npz")).reason is Reason.SOURCE_TOO_LARGE


def test_calibration_data_that_unpacks_to_more_is_refused(layout: Layout, tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "c.npz", images=np.zeros((1000, 3, 8, 64), np.float32))
    report = refused(layout, saved_net(tmp_path), calibrated_on(tmp_path / "c.npz"))
    assert report.reason is Reason.INVALID_CALIBRATION
    assert "at most 1.0Mi are allowed" in report.message


def test_a_model_without_weights_cannot_be_int8(layout: Layout, tmp_path: Path) -> None:
    report = refused(layout, saved(a_model(), tmp_path / "m.onnx"), MADE_UP)
    assert report.reason is Reason.UNSUPPORTED_PRECISION
    assert "no Conv, Gemm, MatMul with constant FP32 weights" in report.message


# -- what a model brings itself --------------------------------------------------------------------


def test_a_model_that_is_fp16_already_is_taken_as_it_is(layout: Layout, tmp_path: Path) -> None:
    path = saved(a_half_net(), tmp_path / "m.onnx")
    report = converted(layout, path, FP16)
    assert "is FP16 already and was taken as it is" in report.message
    assert (entry(layout) / "model.onnx").read_bytes() == path.read_bytes()
    assert not (entry(layout) / ".source").exists()


def test_a_model_that_is_quantised_already_needs_no_calibration(layout: Layout, tmp_path: Path) -> None:
    converted(layout, saved_net(tmp_path), MADE_UP)
    quantised = tmp_path / "quantised.onnx"
    (entry(layout) / "model.onnx").rename(quantised)
    store.files.delete(entry(layout))
    report = converted(layout, quantised, Conversion(Precision.INT8))
    assert "is quantised already (Q/DQ) and was taken as it is" in report.message
    store.files.delete(entry(layout))
    report = refused(layout, quantised, FP16)
    assert report.reason is Reason.UNSUPPORTED_PRECISION


def test_bf16_needs_no_reference_where_the_cpu_cannot_compute_it(layout: Layout, tmp_path: Path) -> None:
    kind = TensorProto.BFLOAT16
    shape = ["batch", 4]
    model = a_model(
        [helper.make_node("Tan", ["x"], ["y"])],
        inputs=[value("x", kind, shape)],
        outputs=[value("y", kind, shape)],
        opsets=[("", 22)],
        ir_version=10,
    )
    path = saved(model, tmp_path / "m.onnx")
    assert refused(layout, path, Conversion()).reason is Reason.UNSUPPORTED_OPERATOR
    report = converted(layout, path, Conversion(Precision.BF16))
    assert report.reason is Reason.SUCCEEDED, report
    assert "computes in BF16 and was taken as it is" in report.message
    assert "its answers are not checked" in report.message


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.TF32])
def test_a_model_whose_numbers_stay_is_stored_as_ever(
    layout: Layout, tmp_path: Path, precision: Precision
) -> None:
    path = saved_net(tmp_path)
    report = converted(layout, path, Conversion(precision))
    manifest = store.read_manifest(layout, ENGINE)
    assert manifest is not None
    assert set(manifest.files) == {"model.onnx", "report.json", "reference.npz"}
    assert manifest.files["model.onnx"] == report.sha256
    assert report_of(layout)["precision"] == {}


# -- large models, and the same bytes every time -----------------------------------------------------


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.INT8])
def test_weights_beside_the_model_stay_beside_it(
    layout: Layout, tmp_path: Path, precision: Precision
) -> None:
    path = saved_with_weights_beside(tmp_path / "source")
    file = calibration_file(tmp_path / "c.npz")
    report = converted(layout, path, FP16 if precision is Precision.FP16 else calibrated_on(file))
    assert report.reason is Reason.SUCCEEDED, report
    manifest = store.read_manifest(layout, ENGINE)
    assert manifest is not None
    assert set(manifest.files) - {"report.json", "reference.npz"} == {
        "model.onnx",
        "model.onnx.data",
        ".source/model.onnx",
        ".source/weights/all.bin",
    }
    assert store.damaged_files(layout, manifest) == []
    given = images(2)
    before, after = (ask(p, images=given)[0] for p in (path, entry(layout) / "model.onnx"))
    np.testing.assert_allclose(after, before, atol=0.05 * np.abs(before).max())


def test_a_volume_without_room_for_the_conversion_is_told_before(
    small_volume: Layout, tmp_path: Path
) -> None:
    path = saved_net(tmp_path, hidden=12_000)
    report = converted(small_volume, path, FP16)
    assert report.reason is Reason.VOLUME_FULL
    assert "are needed" in report.message


def _run(repository: Path, number: int, seed: int, *arguments: str) -> bytes:
    name = f"onnxruntime-{number:016x}"
    repository.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "engine_builder", "prepare", f"--repository={repository}"]
    command += [f"--engine={name}", f"--key={KEY}", "--staging-uid=uid", *arguments]
    environment = os.environ | {"PYTHONHASHSEED": str(seed)}
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return (repository / "store" / name / "model.onnx").read_bytes()


@pytest.mark.parametrize(
    "arguments", [("--precision=FP16",), ("--precision=INT8", "--calibration-generated")]
)
def test_the_same_source_gives_the_same_bytes_in_every_process(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    source = f"--source={saved_net(tmp_path)}"
    first, second = (_run(tmp_path / "r", seed, seed, source, *arguments) for seed in (1, 2))
    assert first == second


# -- samples of the user's own -----------------------------------------------------------------------


@pytest.mark.parametrize("keep_io", [True, False])
def test_own_samples_are_answered_by_the_source_in_the_engines_types(
    layout: Layout, tmp_path: Path, *, keep_io: bool
) -> None:
    path = saved_net(tmp_path)
    converted(layout, path, Conversion(Precision.FP16, keep_io=keep_io))
    dtype = np.float32 if keep_io else np.float16
    given = images(2).astype(dtype)
    np.savez(tmp_path / "samples.npz", images=given)
    request = samples.ReferenceRequest(
        layout.root, "samples-1", KEY, ENGINE, str(tmp_path / "samples.npz"), "uid-2"
    )
    samples.make_reference(request, Progress(quiet=True))
    found = reference_file.load(layout.store / "samples-1" / "reference.npz")
    expected = ask(path, images=given.astype(np.float32))[0].astype(dtype)
    np.testing.assert_allclose(np.concatenate([s.outputs["scores"] for s in found]), expected, rtol=1e-3)
    assert {s.outputs["scores"].dtype for s in found} == {np.dtype(dtype)}
