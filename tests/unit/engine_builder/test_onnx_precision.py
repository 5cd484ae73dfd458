from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from tests.unit.engine_builder.models import a_constant, a_model, value
from tests.unit.engine_builder.nets import a_half_net, a_net, weights

from engine_builder import onnx_precision, rewrite
from engine_builder.contract import Precision, Reason
from engine_builder.errors import JobError
from engine_builder.onnx_precision import Brought, Decision, brought, decide

FLOAT, HALF, BF16 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16
INT8, FP8 = TensorProto.INT8, TensorProto.FLOAT8E4M3FN
KINDS = (FLOAT, HALF, BF16, INT8, TensorProto.UINT8, FP8, TensorProto.INT64)
OPERATORS = ("Conv", "QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger")


def found(*types: int, operators: Any = ("Conv",), counts: Any = None) -> Brought:
    return Brought(weights=counts or {}, types=frozenset(types), operators=frozenset(operators))


@st.composite
def anything(draw: st.DrawFn) -> Brought:
    counts = draw(st.dictionaries(st.sampled_from(KINDS), st.integers(0, 1000)))
    types = draw(st.sets(st.sampled_from(KINDS))) | counts.keys()
    return found(*types, operators=draw(st.sets(st.sampled_from(OPERATORS))), counts=counts)


@given(st.sampled_from(Precision), anything())
def test_every_model_is_converted_taken_with_a_word_or_refused_with_advice(
    asked: Precision, model: Brought
) -> None:
    decision = decision_or_fault(asked, model)
    if isinstance(decision, JobError):
        assert decision.reason is Reason.UNSUPPORTED_PRECISION
        assert decision.message.startswith(f"build.precision {asked.value}: ")
        assert any(word in decision.message for word in ("export", "set", "quantise it"))
    elif decision.converts:
        assert asked in {Precision.FP16, Precision.INT8}
        assert not model.is_quantized
        assert BF16 not in model.types
    elif asked not in {Precision.FP32, Precision.TF32}:
        assert "taken as it is" in decision.note


def decision_or_fault(asked: Precision, model: Brought) -> Decision | JobError:
    try:
        return decide(asked, model)
    except JobError as error:
        return error


@given(anything())
def test_fp32_and_tf32_never_touch_a_model(model: Brought) -> None:
    for asked in (Precision.FP32, Precision.TF32):
        decision = decide(asked, model)
        assert (decision.converts, decision.note) == (False, "")


@pytest.mark.parametrize(
    ("asked", "model", "words"),
    [
        (Precision.BF16, found(FLOAT), "export it in BF16 from its framework, or set FP16"),
        (Precision.FP8, found(FLOAT), "quantise it with NVIDIA Model Optimizer, or set INT8"),
        (Precision.FP8, found(FP8), "it must be in the model already"),
        (Precision.FP16, found(FLOAT, INT8, operators=["QuantizeLinear"]), "is quantised already (Q/DQ)"),
        (Precision.FP16, found(FLOAT, BF16), "computes in BF16"),
        (Precision.INT8, found(FLOAT, INT8, operators=["QLinearConv"]), "is quantised by QLinearConv"),
        (Precision.INT8, found(HALF, counts={HALF: 4}), "export it in FP32"),
    ],
)
def test_a_refusal_says_why_and_what_to_do(asked: Precision, model: Brought, words: str) -> None:
    with pytest.raises(JobError, match="UnsupportedPrecision") as refused:
        decide(asked, model)
    assert words in refused.value.message


def test_what_a_model_brings_is_counted_in_constants_and_seen_in_casts() -> None:
    net = brought(a_net())
    assert net.weights == {FLOAT: 16 * 27 + 16 + 160 + 10}
    assert not net.is_fp16
    assert brought(a_half_net()).is_fp16
    nodes = [
        helper.make_node("Cast", ["x"], ["a"], to=BF16),
        helper.make_node("Cast", ["a"], ["y"], to=FLOAT),
    ]
    assert BF16 in brought(a_model(nodes)).types


def test_fp8_is_seen_by_its_zero_points() -> None:
    zero = helper.make_tensor("zero", FP8, [], [0.0])
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    model = a_model(nodes, initializers=[a_constant("scale", weights()), zero], opsets=[("", 19)])
    assert "FP8 already" in decide(Precision.FP8, brought(model)).note


@given(st.data(), st.integers(1, 12))
def test_nodes_stand_behind_what_they_read_and_keep_their_order_otherwise(
    data: st.DataObject, count: int
) -> None:
    inputs = [data.draw(st.lists(st.integers(0, n), max_size=3)) for n in range(count)]
    nodes = [
        helper.make_node("Sum", [f"t{i}" for i in [*reads, 0]], [f"t{n + 1}"], name=str(n))
        for n, reads in enumerate(inputs)
    ]
    order = data.draw(st.permutations(nodes))
    model = a_model(list(order), inputs=[value("t0")], outputs=[value(f"t{count}")])
    rewrite.sort_nodes(model.graph)
    made = {"t0"}
    for node in model.graph.node:
        assert set(node.input) <= made
        made |= set(node.output)
    assert len(made) == count + 1
    before = [node.name for node in model.graph.node]
    rewrite.sort_nodes(model.graph)
    assert [node.name for node in model.graph.node] == before


def test_a_node_waits_for_what_its_branches_read() -> None:
    branch = helper.make_graph(
        [helper.make_node("Neg", ["late"], ["inner"])], "branch", [], [value("inner", shape=None)]
    )
    nodes = [
        helper.make_node("If", ["flag"], ["y"], then_branch=branch, else_branch=branch),
        helper.make_node("Relu", ["x"], ["late"]),
    ]
    model = a_model(nodes, initializers=[a_constant("flag", [True])])
    rewrite.sort_nodes(model.graph)
    assert [node.op_type for node in model.graph.node] == ["Relu", "If"]


def test_quantised_means_eight_bits_and_qdq() -> None:
    assert onnx_precision.brought(a_net()).is_quantized is False
    assert found(INT8, operators=["Conv"]).is_quantized is False
    assert found(FLOAT, operators=["QuantizeLinear"]).is_quantized is False
    assert found(FLOAT, INT8, operators=["DequantizeLinear"]).is_quantized is True
