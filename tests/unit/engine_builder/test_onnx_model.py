from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from tests.unit.engine_builder.models import (
    LIGHT,
    a_constant,
    a_model,
    a_model_with_external_data,
    external_tensor,
    saved,
    value,
)

from engine_builder import onnx_model, runtime
from engine_builder.contract import Reason, Tensor
from engine_builder.errors import JobError

if TYPE_CHECKING:
    from pathlib import Path

    import onnx


def _fault(function: Any, *args: Any) -> tuple[Reason, str]:
    with pytest.raises(JobError) as caught:
        function(*args)
    return caught.value.reason, caught.value.message


def _load(model: onnx.ModelProto, path: Path) -> tuple[Reason, str]:
    """Check and load as prepare does; returns the fault."""
    saved(model, path)

    def load() -> None:
        parsed = onnx_model.parse(path)
        onnx_model.check(path)
        runtime.open_session(path, parsed)

    return _fault(load)


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
        (b"PK\x03\x04" + b"\0" * 50, "torch.onnx.export"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"hello, this is a text file\n", "text, beginning with 'hello"),
        (b"\x89HDF\r\n", "HDF5"),
        (bytes(range(128, 256)), "damaged"),
    ],
)
def test_what_is_not_onnx_is_called_what_it_looks_like(tmp_path: Path, content: bytes, hint: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    reason, message = _fault(onnx_model.parse, path)
    assert reason is Reason.INVALID_MODEL
    assert hint in message


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_truncated_model_is_invalid(tmp_path: Path, share: float) -> None:
    whole = (LIGHT / "light_resnet50.onnx").read_bytes()
    path = tmp_path / "model.onnx"
    path.write_bytes(whole[: int(len(whole) * share)])
    reason, message = _fault(onnx_model.parse, path)
    assert reason is Reason.INVALID_MODEL
    assert "truncated" in message


def test_the_checker_refuses_a_graph_that_is_not_one(tmp_path: Path) -> None:
    cycle = [helper.make_node("Relu", ["b"], ["a"]), helper.make_node("Relu", ["a"], ["b"])]
    reason, message = _load(a_model(cycle, outputs=[value("b")]), tmp_path / "m.onnx")
    assert reason is Reason.INVALID_MODEL
    assert "checker" in message


@pytest.mark.parametrize(
    ("node", "opsets", "expected"),
    [
        (
            helper.make_node("Foo", ["x"], ["y"], name="mine", domain="acme"),
            [("", 17), ("acme", 1)],
            "acme::Foo",
        ),
        (helper.make_node("Foo", ["x"], ["y"], name="mine"), [("", 17)], "Foo"),
    ],
)
def test_an_operator_that_the_runtime_lacks_is_named_with_its_node(
    tmp_path: Path, node: Any, opsets: Any, expected: str
) -> None:
    reason, message = _load(a_model([node], opsets=opsets), tmp_path / "m.onnx")
    assert reason is Reason.UNSUPPORTED_OPERATOR
    assert expected in message
    assert "mine" in message


def test_a_known_operator_without_a_kernel_for_its_type_is_unsupported(tmp_path: Path) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="convolution")
    shape = (1, 1, 4, 4)
    model = a_model(
        [node],
        inputs=[value("x", TensorProto.DOUBLE, shape)],
        outputs=[value("y", TensorProto.DOUBLE, shape)],
        initializers=[a_constant("w", np.ones((1, 1, 1, 1)))],
    )
    reason, message = _load(model, tmp_path / "m.onnx")
    assert reason is Reason.UNSUPPORTED_OPERATOR
    assert "Conv" in message
    assert "convolution" in message


def test_an_opset_of_the_future_says_what_is_supported(tmp_path: Path) -> None:
    reason, message = _load(a_model(opsets=[("", 99)]), tmp_path / "m.onnx")
    assert reason is Reason.UNSUPPORTED_OPERATOR
    assert "opset" in message
    assert "99" in message


def test_messages_of_the_runtime_name_no_source_file_of_its_own() -> None:
    raw = (
        "[ONNXRuntimeError] : 1 : FAIL : /onnxruntime_src/onnxruntime/core/graph/model.cc:256 "
        "onnxruntime::Model::Model(onnx::ModelProto&&, const int&) Unsupported model IR version: 99, "
        "max supported IR version: 13\n"
    )
    assert runtime.clean(raw) == "Unsupported model IR version: 99, max supported IR version: 13"


def test_a_signature_names_inputs_that_are_not_weights_and_keeps_their_order() -> None:
    model = a_model(
        [
            helper.make_node("Add", ["b", "w"], ["s"]),
            helper.make_node("Cast", ["s"], ["y"], to=TensorProto.FLOAT16),
        ],
        inputs=[value("b", shape=("batch", 4)), value("w"), value("a", TensorProto.STRING, (None,))],
        outputs=[value("y", TensorProto.FLOAT16, ("batch", 4)), value("s", shape=("batch", 4))],
        initializers=[a_constant("w", np.zeros((1, 4), np.float32))],
    )
    found = onnx_model.signature(model)
    assert found.inputs == (Tensor("b", "FP32", (-1, 4)), Tensor("a", "BYTES", (-1,)))
    assert found.outputs == (Tensor("y", "FP16", (-1, 4)), Tensor("s", "FP32", (-1, 4)))


@pytest.mark.parametrize("kind", sorted(onnx_model.TRITON_TYPES))
def test_every_triton_type_is_read(kind: int) -> None:
    model = a_model(inputs=[value("x", kind)], outputs=[value("y", kind)])
    assert onnx_model.signature(model).inputs[0].datatype == onnx_model.TRITON_TYPES[kind]


@pytest.mark.parametrize("side", ["inputs", "outputs"])
@pytest.mark.parametrize(
    ("inputs", "hint"),
    [
        ([helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, [1])], "sequence"),
        ([helper.make_tensor_value_info("x", TensorProto.COMPLEX64, [1])], "COMPLEX64"),
        ([helper.make_tensor_value_info("x", TensorProto.FLOAT, None)], "no shape"),
    ],
)
def test_what_triton_cannot_exchange_is_explained(inputs: Any, hint: str, side: str) -> None:
    reason, message = _fault(onnx_model.signature, a_model(**{side: inputs}))
    assert reason is Reason.INVALID_MODEL
    assert hint in message
    assert "'x'" in message


def test_external_data_is_found_wherever_a_tensor_can_stand(tmp_path: Path) -> None:
    """Constants, branches, bodies of loops, functions, sparse tensors: each names its own file."""
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=external_tensor("c", "branch.bin"))],
        "b",
        [],
        [value("c")],
    )
    inner = helper.make_graph(
        [helper.make_node("If", ["flag"], ["d"], then_branch=branch, else_branch=branch)],
        "l",
        [],
        [value("d")],
    )
    function = helper.make_function(
        "acme",
        "Three",
        [],
        ["t"],
        [helper.make_node("Constant", [], ["t"], value=external_tensor("t", "function.bin"))],
        [helper.make_opsetid("", 17)],
    )
    model = a_model(
        [
            helper.make_node("Loop", ["n", "flag"], ["y"], body=inner),
            helper.make_node("Constant", [], ["k"], value=external_tensor("k", "constant.bin")),
        ],
        initializers=[external_tensor("w", "weights.bin", offset=8, length=None)],
        functions=[function],
    )
    sparse = model.graph.sparse_initializer.add()
    sparse.values.CopyFrom(external_tensor("sv", "values.bin"))
    sparse.indices.CopyFrom(external_tensor("si", "indices.bin"))
    found = onnx_model.externals(saved(model, tmp_path / "m.onnx"))
    assert {e.name.removesuffix(".bin") for e in found} == {
        "branch",
        "function",
        "constant",
        "weights",
        "values",
        "indices",
    }
    assert {(e.offset, e.length) for e in found if e.tensor == "w"} == {(8, None)}


@pytest.mark.parametrize("key", ["offset", "length"])
@pytest.mark.parametrize("text", ["-1", "x", "", "1e3", "9" * 30])
def test_external_data_with_a_strange_extent_is_invalid(tmp_path: Path, key: str, text: str) -> None:
    model = a_model_with_external_data()
    next(e for e in model.graph.initializer[0].external_data if e.key == key).value = text
    assert _fault(onnx_model.externals, saved(model, tmp_path / "m.onnx"))[0] is Reason.INVALID_MODEL


def test_external_data_that_names_its_place_twice_is_invalid(tmp_path: Path) -> None:
    model = a_model_with_external_data()
    model.graph.initializer[0].external_data.add(key="location", value="other.bin")
    assert _fault(onnx_model.externals, saved(model, tmp_path / "m.onnx"))[0] is Reason.INVALID_MODEL


def test_contents_count_operators_in_branches_and_parameters() -> None:
    branch = helper.make_graph([helper.make_node("Neg", ["x"], ["c"])], "b", [], [value("c")])
    model = a_model(
        [helper.make_node("If", ["flag"], ["y"], then_branch=branch, else_branch=branch)],
        inputs=[value("x"), value("flag", TensorProto.BOOL, ())],
        initializers=[a_constant("w", np.zeros((3, 5), np.float32))],
    )
    found = onnx_model.contents(model)
    assert found.operators == {"Neg": 2, "If": 1}
    assert found.parameters == math.prod((3, 5))
    assert found.opsets == {"ai.onnx": 17}


def test_cores_are_those_that_this_process_may_use() -> None:
    assert runtime.available_cores() >= 1
