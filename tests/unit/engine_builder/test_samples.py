from __future__ import annotations

import io
import pickle
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from tests.unit.engine_builder.models import ENGINE, KEY, a_constant, a_model, an_engine, saved, value

from engine_builder import (
    files,
    job,
    prepare,
    reference,
    reference_file,
    samples,
    samples_file,
    store,
)
from engine_builder.contract import Reason, Report, from_json
from engine_builder.errors import JobError
from engine_builder.prepare import PrepareRequest
from engine_builder.progress import Progress
from engine_builder.reference import Input
from engine_builder.samples import ReferenceRequest

if TYPE_CHECKING:
    from pathlib import Path

    from engine_builder.volume import Layout

ENTRY, ENTRY_KEY = "samples-0123456789abcdef", "cd" * 32

ROWS = [Input("tokens", "tensor(int64)", ("n", 3)), Input("mask", "tensor(float)", ("n",))]
IMAGE = [Input("image", "tensor(float)", (1, 2, "width"))]
TEXT = [Input("text", "tensor(string)", (None, 1))]


def a_file(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


# The file.


def _load(path: Path, inputs: list[Input], *, batched: bool = False, most_bytes: int = 1 << 20) -> Any:
    return samples_file.load(path, inputs, batched=batched, most_bytes=most_bytes)


def _fault(path: Path, inputs: list[Input], *, batched: bool = False, most_bytes: int = 1 << 20) -> str:
    with pytest.raises(JobError) as caught:
        _load(path, inputs, batched=batched, most_bytes=most_bytes)
    assert caught.value.reason is Reason.INVALID_SAMPLES
    return caught.value.message


def test_rows_of_a_batch_are_samples_of_their_own(tmp_path: Path) -> None:
    tokens, mask = np.arange(12).reshape(4, 3), np.ones(4, np.float32)
    found = _load(a_file(tmp_path / "s.npz", tokens=tokens, mask=mask), ROWS, batched=True)
    assert len(found) == 4
    np.testing.assert_array_equal(found[2]["tokens"], [[6, 7, 8]])
    assert found[2]["mask"].shape == (1,)


def test_without_a_batch_the_arrays_are_one_sample(tmp_path: Path) -> None:
    image = np.ones((1, 2, 7), np.float32)
    (found,) = _load(a_file(tmp_path / "s.npz", image=image), IMAGE)
    np.testing.assert_array_equal(found["image"], image)


def test_numbers_tell_samples_apart_and_give_their_order(tmp_path: Path) -> None:
    arrays = {f"{n}/image": np.full((1, 2, n), n, np.float32) for n in (10, 9, 1)}
    found = _load(a_file(tmp_path / "s.npz", **arrays), IMAGE)
    assert [each["image"].shape[2] for each in found] == [1, 9, 10]


def test_an_input_may_be_named_like_a_number_of_a_sample(tmp_path: Path) -> None:
    inputs = [Input("0/x", "tensor(float)", (2,))]
    path = a_file(tmp_path / "s.npz", **{"0/x": np.ones(2, np.float32)})
    assert len(_load(path, inputs)) == 1
    path = a_file(tmp_path / "t.npz", **{"7/0/x": np.ones(2, np.float32)})
    assert len(_load(path, inputs)) == 1


def test_text_nan_other_byte_orders_and_columns_first_are_taken(tmp_path: Path) -> None:
    (found,) = _load(a_file(tmp_path / "t.npz", text=np.array([["zwölf"]])), TEXT)
    assert found["text"].tolist() == [["zwölf"]]
    assert found["text"].dtype == object
    image = np.asfortranarray(np.array([[[np.nan, np.inf], [1, 2]]], dtype=">f4"))
    (given,) = _load(a_file(tmp_path / "i.npz", image=image), IMAGE)
    np.testing.assert_array_equal(given["image"], image)
    assert given["image"].dtype == np.dtype(np.float32)


@pytest.mark.parametrize("kind", sorted(reference.DTYPES.keys() - {"tensor(string)"}))
def test_every_type_that_onnxruntime_takes_can_be_given(tmp_path: Path, kind: str) -> None:
    array = np.array(1).astype(reference.DTYPES[kind])
    (found,) = _load(a_file(tmp_path / "s.npz", x=array), [Input("x", kind, ())])
    assert (found["x"].dtype, found["x"].shape) == (array.dtype, ())


@pytest.mark.parametrize(
    ("arrays", "inputs", "hints"),
    [
        ({"tokens": np.ones((1, 3), int)}, ROWS, ["lacks mask", "each of mask, tokens"]),
        ({"picture": np.ones(1)}, IMAGE, ["lacks image", "holds picture, no input"]),
        ({"0/image": np.ones(1), "image": np.ones(1)}, IMAGE, ["0/image, no input"]),
        ({"0/image": np.ones((1, 2, 3), np.float32), "1/x": np.ones(1)}, IMAGE, ["1/image", "1/x"]),
        ({}, IMAGE, ["lacks image"]),
        ({"image": np.ones((1, 2, 3))}, IMAGE, ["float64", "takes float32", "astype('float32')"]),
        ({"image": np.ones((4, 2, 3), np.float32)}, IMAGE, ["[4, 2, 3]", "[1, 2, any], batch included"]),
        ({"3/image": np.ones((2, 3), np.float32)}, IMAGE, ["3/image has shape [2, 3]"]),
        ({"text": np.ones((1, 1), int)}, TEXT, ["takes text", "astype(str)"]),
        ({"text": np.array([[b"a"]])}, TEXT, ["takes text"]),
        ({"image": np.zeros((1, 2, 3), [("a", "f4")])}, IMAGE, ["takes float32"]),
    ],
)
def test_what_does_not_fit_the_model_is_named(
    tmp_path: Path, arrays: Any, inputs: list[Input], hints: list[str]
) -> None:
    message = _fault(a_file(tmp_path / "s.npz", **arrays), inputs)
    assert message.startswith("check.samples: ")
    for hint in hints:
        assert hint in message


def test_a_batch_needs_the_same_rows_everywhere_and_one_at_least(tmp_path: Path) -> None:
    tokens = np.ones((4, 3), np.int64)
    path = a_file(tmp_path / "s.npz", tokens=tokens, mask=np.ones(3, np.float32))
    assert "tokens: 4, mask: 3" in _fault(path, ROWS, batched=True)
    path = a_file(tmp_path / "t.npz", tokens=tokens[:0], mask=np.ones(0, np.float32))
    assert "no row" in _fault(path, ROWS, batched=True)


def test_more_samples_than_anybody_waits_for_are_refused(tmp_path: Path) -> None:
    count = samples_file.MOST_SAMPLES
    arrays = {"tokens": np.ones((count, 3), np.int64), "mask": np.ones(count, np.float32)}
    assert len(_load(a_file(tmp_path / "s.npz", **arrays), ROWS, batched=True)) == count
    more = {name: np.concatenate([array, array[:1]]) for name, array in arrays.items()}
    assert f"more than {count}" in _fault(a_file(tmp_path / "t.npz", **more), ROWS, batched=True)


class _Evil:
    def __reduce__(self) -> Any:
        return (pytest.fail, ("unpickled",))


def test_pickled_objects_are_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "s.npz"
    np.savez(path, image=np.array([_Evil()], dtype=object), allow_pickle=True)
    assert "Python objects" in _fault(path, IMAGE)
    path.write_bytes(pickle.dumps([1]))
    assert "numpy.savez" in _fault(path, IMAGE)


def _a_zip(path: Path, content: bytes, name: str = "image.npy") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return path


def _npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage",
        _npy(np.ones((1, 2, 3), np.float32))[:-1],
        _npy(np.ones((1, 2, 3), np.float32)) + b"x",
        _npy(np.ones((1, 2, 3), np.float32)).replace(b"(1, 2, 3)", b"(9,99999)"),
        _npy(np.ones((1, 2, 33333), np.float32))[:200],
        b"\x93NUMPY\x03\x00" + b"\0" * 90,
    ],
)
def test_an_array_that_is_damaged_or_lies_about_its_size_is_refused(tmp_path: Path, content: bytes) -> None:
    assert "cannot be read as .npz" in _fault(_a_zip(tmp_path / "s.npz", content), IMAGE)


@pytest.mark.parametrize("cut", [0, 10, 100, -30])
def test_a_file_that_is_no_whole_archive_is_refused(tmp_path: Path, cut: int) -> None:
    path = a_file(tmp_path / "s.npz", image=np.ones((1, 2, 3), np.float32))
    path.write_bytes(path.read_bytes()[:cut])
    assert "cannot be read as .npz" in _fault(path, IMAGE)


def test_an_archive_that_unpacks_to_more_than_is_allowed_is_refused(tmp_path: Path) -> None:
    path = _a_zip(tmp_path / "s.npz", b"\0" * (4 << 20))
    assert path.stat().st_size < 1 << 16
    assert "unpacked they hold 4.0Mi and at most 1.0Mi are allowed" in _fault(path, IMAGE)


# The job.


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer without a child process: this one has threads already; the command line has a child."""
    for module in (samples, prepare):
        monkeypatch.setattr(module, "isolated", lambda function, *args, **kwargs: function(*args, **kwargs))


def a_prepared_engine(layout: Layout, model: Any = None) -> None:
    batched = a_model(inputs=[value("x", shape=("n", 4))], outputs=[value("y", shape=("n", 4))])
    path = saved(model or batched, layout.root.parent / "m.onnx")
    request = PrepareRequest(layout.root, ENGINE, KEY, str(path), "uid-0")
    assert prepare.prepare(request, Progress(quiet=True)).reason is Reason.SUCCEEDED


def _refer(layout: Layout, path: Path, **kwargs: Any) -> Report:
    log = layout.root.parent / "termination-log"
    progress = Progress(quiet=True)
    request = ReferenceRequest(
        **{
            "repository": layout.root,
            "entry": ENTRY,
            "key": ENTRY_KEY,
            "engine": ENGINE,
            "uri": str(path),
            "staging_uid": "uid-1",
            **kwargs,
        }
    )
    code = job.run_job(
        lambda: samples.make_reference(request, progress),
        engine=ENTRY,
        progress=progress,
        termination_log=log,
    )
    report = from_json(Report, log.read_text())
    assert code == report.exit_code
    assert list(layout.staging.iterdir()) == [], "the attempt left something"
    return report


def some_samples(path: Path, rows: int = 5) -> Path:
    return a_file(path / "s.npz", x=np.linspace(-1, 1, rows * 4, dtype=np.float32).reshape(rows, 4))


def test_the_source_answers_the_users_samples_in_an_entry_of_the_store(
    layout: Layout, tmp_path: Path
) -> None:
    a_prepared_engine(layout)
    path = some_samples(tmp_path)
    report = _refer(layout, path)
    assert (report.reason, report.message) == (Reason.SUCCEEDED, "5 of 5 samples answered")
    manifest = store.read_manifest(layout, ENTRY)
    engine = store.read_manifest(layout, ENGINE)
    assert manifest is not None
    assert engine is not None
    assert (manifest.key, manifest.source_sha256) == (ENTRY_KEY, store._digest(path))
    assert (report.sha256, report.size_bytes) == (manifest.source_sha256, manifest.size_bytes)
    assert manifest.signature == engine.signature
    assert manifest.files.keys() == {"reference.npz"}
    assert store.damaged_files(layout, manifest) == []
    found = reference_file.load(layout.store / ENTRY / "reference.npz")
    assert [sample.inputs["x"].shape for sample in found] == [(1, 4)] * 5
    for sample in found:
        np.testing.assert_array_equal(sample.outputs["y"], np.maximum(sample.inputs["x"], 0))


def test_a_second_attempt_finds_the_samples_and_reads_no_file(layout: Layout, tmp_path: Path) -> None:
    a_prepared_engine(layout)
    path = some_samples(tmp_path)
    first = _refer(layout, path)
    path.unlink()
    second = _refer(layout, path, staging_uid="uid-2")
    assert (second.reason, second.sha256) == (Reason.SUCCEEDED, first.sha256)


def test_a_model_with_external_data_answers(layout: Layout, tmp_path: Path) -> None:
    from tests.unit.engine_builder.models import saved_with_external_data

    path = saved_with_external_data(tmp_path / "source")
    prepare.prepare(PrepareRequest(layout.root, ENGINE, KEY, str(path), "uid-0"), Progress(quiet=True))
    given = np.ones((1, 4), np.float32)
    assert _refer(layout, a_file(tmp_path / "s.npz", x=given)).reason is Reason.SUCCEEDED
    (found,) = reference_file.load(layout.store / ENTRY / "reference.npz")
    np.testing.assert_array_equal(found.outputs["y"], given + np.arange(4, dtype=np.float32))


def test_answers_that_are_no_numbers_are_noted(layout: Layout, tmp_path: Path) -> None:
    a_prepared_engine(layout)
    report = _refer(layout, a_file(tmp_path / "s.npz", x=np.full((1, 4), np.inf, np.float32)))
    assert "NaN or infinity in y" in report.message


def test_what_takes_too_long_is_left_out_and_said(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_prepared_engine(layout)
    monkeypatch.setattr(reference, "_ENOUGH_SECONDS", 0.0)
    report = _refer(layout, some_samples(tmp_path))
    assert report.message.startswith("1 of 5 samples answered; the others")
    assert len(reference_file.load(layout.store / ENTRY / "reference.npz")) == 1


@pytest.mark.parametrize(
    ("arrays", "kwargs", "reason", "hint"),
    [
        (None, {}, Reason.SOURCE_NOT_FOUND, "correct check.samples.uri"),
        ({"x": np.ones((1, 4))}, {}, Reason.INVALID_SAMPLES, "x is float64"),
        (
            {"x": np.ones((1, 4), np.float32)},
            {"sha256": "0" * 64},
            Reason.DIGEST_MISMATCH,
            "check.samples.sha256",
        ),
        ({"x": np.ones((1, 4), np.float32)}, {"max_bytes": 10}, Reason.SOURCE_TOO_LARGE, "at most 10 bytes"),
    ],
)
def test_a_users_fault_ends_the_job_in_words_of_the_field(
    layout: Layout, tmp_path: Path, *, arrays: Any, kwargs: Any, reason: Reason, hint: str
) -> None:
    a_prepared_engine(layout)
    path = tmp_path / "s.npz"
    if arrays is not None:
        a_file(path, **arrays)
    report = _refer(layout, path, **kwargs)
    assert (report.reason, report.exit_code) == (reason, 10)
    assert hint in report.message
    assert store.list_engines(layout) == [ENGINE]


def test_a_sample_that_the_model_refuses_is_named(layout: Layout, tmp_path: Path) -> None:
    model = a_model(
        [helper.make_node("Gather", ["table", "x"], ["y"])],
        inputs=[value("x", TensorProto.INT64, ("n", 1))],
        outputs=[value("y", shape=("n", 1, 4))],
        initializers=[a_constant("table", np.ones((10, 4), np.float32))],
    )
    a_prepared_engine(layout, model)
    report = _refer(layout, a_file(tmp_path / "s.npz", x=np.array([[1], [77]])))
    assert report.reason is Reason.INVALID_SAMPLES
    assert "does not take sample 1" in report.message
    assert "onnxruntime_src" not in report.message


def test_a_model_that_python_cannot_ask_is_told_to_go_without(layout: Layout, tmp_path: Path) -> None:
    kind = TensorProto.BFLOAT16
    a_prepared_engine(
        layout,
        a_model(
            [helper.make_node("Identity", ["x"], ["y"])],
            inputs=[value("x", kind)],
            outputs=[value("y", kind)],
        ),
    )
    report = _refer(layout, some_samples(tmp_path))
    assert report.reason is Reason.INVALID_SAMPLES
    assert "bfloat16" in report.message
    assert "take spec.check.samples out" in report.message


def test_an_engine_that_is_not_there_is_a_passing_fault(layout: Layout, tmp_path: Path) -> None:
    report = _refer(layout, some_samples(tmp_path))
    assert (report.reason, report.exit_code) == (Reason.VOLUME_ERROR, 20)
    assert ENGINE in report.message


def test_a_link_is_not_followed(layout: Layout, tmp_path: Path) -> None:
    a_prepared_engine(layout)
    some_samples(tmp_path)
    (tmp_path / "link.npz").symlink_to("s.npz")
    assert _refer(layout, tmp_path / "link.npz").reason is Reason.UNSAFE_SOURCE


def test_a_volume_without_room_is_a_passing_fault(small_volume: Layout, tmp_path: Path) -> None:
    an_engine(small_volume)
    path = a_file(tmp_path / "s.npz", x=np.zeros((1, 2_000_000), np.float32))
    report = _refer(small_volume, path)
    assert (report.reason, report.exit_code) == (Reason.VOLUME_FULL, 20)
    assert store.list_engines(small_volume) == [ENGINE]
    assert files.read_file(small_volume.store / ENGINE / store.MODEL_FILE) == b"model"
