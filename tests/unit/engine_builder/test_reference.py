from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from tests.unit.engine_builder.models import LIGHT, a_constant, a_model, saved, value

from engine_builder import reference, reference_file, runtime

if TYPE_CHECKING:
    from pathlib import Path


def _answer(model: Any, path: Path) -> reference.Reference:
    return reference.answer(runtime.open_session(saved(model, path / "m.onnx"), model))


def test_the_same_model_always_gets_the_same_inputs_and_answers(tmp_path: Path) -> None:
    path = LIGHT / "light_squeezenet.onnx"
    session = runtime.open_session(path, a_model())
    first, second = reference.answer(session), reference.answer(session)
    assert len(first.samples) == reference.SAMPLES
    for one, other in zip(first.samples, second.samples, strict=True):
        for side in ("inputs", "outputs"):
            for name, array in getattr(one, side).items():
                np.testing.assert_array_equal(array, getattr(other, side)[name])
    inputs = [s.inputs["data_0"] for s in first.samples]
    assert not np.array_equal(inputs[0], inputs[1])


def test_answers_are_those_of_the_model(tmp_path: Path) -> None:
    for sample in _answer(a_model(), tmp_path).samples:
        np.testing.assert_array_equal(sample.outputs["y"], np.maximum(sample.inputs["x"], 0))


def test_more_inputs_of_the_same_kind_begin_with_those_that_were_found(tmp_path: Path) -> None:
    model = a_model(
        [helper.make_node("Gather", ["table", "x"], ["y"])],
        inputs=[value("x", TensorProto.INT64, ["batch", 3])],
        outputs=[value("y", shape=["batch", 3])],
        initializers=[a_constant("table", np.zeros(2, np.float32))],  # two rows: most numbers are too high
    )
    session = runtime.open_session(saved(model, tmp_path / "m.onnx"), model)
    found = reference.answer(session)
    more = reference.more_like(session, found, count=16)
    assert len(more) == 16
    for sample, inputs in zip(found.samples, more, strict=False):
        np.testing.assert_array_equal(sample.inputs["x"], inputs["x"])
    assert len(list(reference.run(session, more))) == 16


def test_kinds_change_the_width_of_numbers_and_nothing_else() -> None:
    given = {"x": np.array([1.5, 7e4], np.float32), "n": np.array([3]), "t": np.array(["a"])}
    kinds = {"x": "tensor(float16)", "n": "tensor(int64)", "t": "tensor(string)"}
    found = reference.as_kinds(given, kinds)
    assert found["x"].dtype == np.float16
    assert found["x"].tolist() == [1.5, np.inf]
    assert found["n"] is given["n"]
    assert found["t"] is given["t"]


def test_dynamic_dimensions_have_batch_one_and_equal_symbols_equal_sizes(tmp_path: Path) -> None:
    model = a_model(
        [helper.make_node("Add", ["a", "b"], ["y"])],
        inputs=[value("a", shape=("batch", "length")), value("b", shape=("batch", "c", "h", "length"))],
        outputs=[value("y", shape=("batch", "c", "h", "length"))],
    )
    sample = _answer(model, tmp_path).samples[0]
    assert sample.inputs["a"].shape == (1, 16)
    assert sample.inputs["b"].shape == (1, 3, 224, 16)


def test_other_sizes_are_tried_until_the_model_takes_one(tmp_path: Path) -> None:
    model = a_model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        inputs=[value("x", shape=("batch", "features"))],
        outputs=[value("y", shape=("batch", 2))],
        initializers=[a_constant("w", np.ones((64, 2), np.float32))],
    )
    assert _answer(model, tmp_path).samples[0].inputs["x"].shape == (1, 64)


def test_smaller_numbers_are_tried_until_they_are_indices(tmp_path: Path) -> None:
    model = a_model(
        [helper.make_node("Gather", ["table", "x"], ["y"])],
        inputs=[value("x", TensorProto.INT64, ("batch", 50))],
        outputs=[value("y", shape=("batch", 50, 4))],
        initializers=[a_constant("table", np.ones((2, 4), np.float32))],
    )
    sample = _answer(model, tmp_path).samples[0]
    assert set(np.unique(sample.inputs["x"])) == {0, 1}


def test_a_model_that_takes_no_generated_input_has_no_samples_and_a_note(tmp_path: Path) -> None:
    model = a_model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        inputs=[value("x", shape=("batch", "features"))],
        outputs=[value("y", shape=("batch", 2))],
        initializers=[a_constant("w", np.ones((77, 2), np.float32))],
    )
    found = _answer(model, tmp_path)
    assert found.samples == ()
    assert "no generated input worked" in found.notes[0]
    assert "onnxruntime_src" not in found.notes[0]


def test_inputs_too_large_for_memory_are_not_made(tmp_path: Path) -> None:
    shape = (1, 3, 100_000, 100_000)
    found = _answer(a_model(inputs=[value("x", shape=shape)], outputs=[value("y", shape=shape)]), tmp_path)
    assert found.samples == ()
    assert "too large" in found.notes[0]


def test_answers_that_are_not_numbers_are_noted(tmp_path: Path) -> None:
    model = a_model([helper.make_node("Neg", ["x"], ["n"]), helper.make_node("Log", ["n"], ["y"])])
    found = _answer(model, tmp_path)
    assert len(found.samples) == reference.SAMPLES
    assert "NaN or infinity in y" in found.notes[0]


@pytest.mark.parametrize(
    "kind",
    ["FLOAT", "DOUBLE", "FLOAT16", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "BOOL", "STRING"],
)
def test_every_type_survives_the_file_without_pickles(tmp_path: Path, kind: str) -> None:
    number = getattr(TensorProto, kind)
    model = a_model(
        [helper.make_node("Identity", ["x/1"], ["y/2"])],
        inputs=[value("x/1", number, ("batch", 3))],
        outputs=[value("y/2", number, ("batch", 3))],
    )
    samples = _answer(model, tmp_path).samples
    reference_file.save(tmp_path / "reference.npz", samples)
    loaded = reference_file.load(tmp_path / "reference.npz")
    assert len(loaded) == reference.SAMPLES
    for made, read in zip(samples, loaded, strict=True):
        np.testing.assert_array_equal(made.inputs["x/1"].astype(read.inputs["x/1"].dtype), read.inputs["x/1"])
        np.testing.assert_array_equal(read.inputs["x/1"], read.outputs["y/2"])
        assert read.inputs["x/1"].dtype.kind != "O"


def test_bfloat16_has_no_samples_and_a_note(tmp_path: Path) -> None:
    kind = TensorProto.BFLOAT16
    model = a_model(
        [helper.make_node("Identity", ["x"], ["y"])], inputs=[value("x", kind)], outputs=[value("y", kind)]
    )
    found = _answer(model, tmp_path)
    assert found.samples == ()
    assert "bfloat16" in found.notes[0]
