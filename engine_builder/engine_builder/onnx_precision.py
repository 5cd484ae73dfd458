"""Which precision an ONNX brings, and whether it must be converted to have the one that is asked.

Needs the `onnx` package.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from onnx import TensorProto

from engine_builder import onnx_model
from engine_builder.contract import Precision, Reason
from engine_builder.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import onnx

_FP8 = frozenset(
    {
        TensorProto.FLOAT8E4M3FN,
        TensorProto.FLOAT8E4M3FNUZ,
        TensorProto.FLOAT8E5M2,
        TensorProto.FLOAT8E5M2FNUZ,
    }
)
_INT8 = frozenset({TensorProto.INT8, TensorProto.UINT8})
_QDQ = frozenset({"QuantizeLinear", "DequantizeLinear"})
_INTEGER_OPERATORS = frozenset(
    {"QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"}
)


@dataclasses.dataclass(frozen=True)
class Brought:
    """What a model computes with.

    `weights` counts the elements of constants by their ONNX type, `types` are all types that occur,
    `operators` the names of all operators.
    """

    weights: Mapping[int, int]
    types: frozenset[int]
    operators: frozenset[str]

    @property
    def is_quantized(self) -> bool:
        """Tell whether 8-bit numbers are made and read by Q/DQ."""
        return bool(self.operators & _QDQ) and bool(self.types & (_INT8 | _FP8))

    @property
    def is_fp16(self) -> bool:
        """Tell whether more weights are FP16 than FP32; without weights, whether FP16 occurs alone."""
        half, full = (self.weights.get(kind, 0) for kind in (TensorProto.FLOAT16, TensorProto.FLOAT))
        if half or full:
            return half > full
        return TensorProto.FLOAT16 in self.types and TensorProto.FLOAT not in self.types


@dataclasses.dataclass(frozen=True)
class Decision:
    """Whether a model is converted; `note` tells why one that isn't, though it was asked for, is right."""

    converts: bool
    note: str = ""


_AS_IT_IS = Decision(converts=False)


def brought(model: onnx.ModelProto) -> Brought:
    """Read what a model computes with; its inner types count as far as they were inferred."""
    weights: Counter[int] = Counter()
    for tensor in onnx_model.tensors(model):
        weights[tensor.data_type] += math.prod(tensor.dims)
    return Brought(
        weights=weights,
        types=frozenset(weights) | frozenset(_value_types(model)),
        operators=frozenset(node.op_type for node in onnx_model.all_nodes(model)),
    )


def _value_types(model: onnx.ModelProto) -> Iterator[int]:
    graph = model.graph
    for value in (*graph.input, *graph.output, *graph.value_info):
        yield value.type.tensor_type.elem_type
    for node in onnx_model.all_nodes(model):
        if node.op_type == "Cast":
            yield from (attribute.i for attribute in node.attribute if attribute.name == "to")


def decide(asked: Precision, found: Brought) -> Decision:
    """Return what must be done to a model that brings `found`.

    Raises:
        JobError: `UnsupportedPrecision`, with what to do instead.
    """
    return _DECIDE[asked](found)


def refusal(asked: Precision, message: str) -> JobError:
    """Return the fault that a model can't be given the precision that is asked."""
    return JobError(Reason.UNSUPPORTED_PRECISION, f"build.precision {asked.value}: {message}")


def _fp16(found: Brought) -> Decision:
    if found.is_quantized:
        advice = "set build.precision to what it was quantised to, or export it without quantisation"
        raise refusal(Precision.FP16, f"the model is quantised already (Q/DQ): {advice}")
    if TensorProto.BFLOAT16 in found.types:
        message = "the model computes in BF16: set build.precision to BF16, or export it in FP32"
        raise refusal(Precision.FP16, message)
    if found.is_fp16:
        return Decision(converts=False, note="the model is FP16 already and was taken as it is")
    if TensorProto.FLOAT not in found.types:
        return Decision(converts=False, note="the model holds no FP32 numbers and was taken as it is")
    return Decision(converts=True)


def _int8(found: Brought) -> Decision:
    if found.is_quantized and found.types & _INT8:
        return Decision(converts=False, note="the model is quantised already (Q/DQ) and was taken as it is")
    if operators := sorted(found.operators & _INTEGER_OPERATORS):
        advice = "export it with QuantizeLinear and DequantizeLinear (Q/DQ), or unquantised"
        raise refusal(Precision.INT8, f"the model is quantised by {', '.join(operators)}: {advice}")
    if found.is_fp16 or TensorProto.BFLOAT16 in found.types or found.types & _FP8:
        message = "quantising begins with FP32 weights and the model has others: export it in FP32"
        raise refusal(Precision.INT8, message)
    return Decision(converts=True)


def _bf16(found: Brought) -> Decision:
    if TensorProto.BFLOAT16 in found.types:
        return Decision(converts=False, note="the model computes in BF16 and was taken as it is")
    message = "it must be in the model already: export it in BF16 from its framework, or set FP16"
    raise refusal(Precision.BF16, message)


def _fp8(found: Brought) -> Decision:
    if found.types & _FP8 and found.operators & _QDQ:
        return Decision(
            converts=False, note="the model is quantised to FP8 already (Q/DQ) and was taken as it is"
        )
    message = "it must be in the model already: quantise it with NVIDIA Model Optimizer, or set INT8"
    raise refusal(Precision.FP8, message)


def _unchanged(_found: Any) -> Decision:
    return _AS_IT_IS


_DECIDE: Mapping[Precision, Callable[[Brought], Decision]] = {
    Precision.FP32: _unchanged,
    Precision.TF32: _unchanged,
    Precision.FP16: _fp16,
    Precision.BF16: _bf16,
    Precision.INT8: _int8,
    Precision.FP8: _fp8,
}
