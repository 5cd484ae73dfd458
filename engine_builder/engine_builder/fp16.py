"""FP16 put into an ONNX by onnxruntime's converter; what can't compute in FP16 stays FP32.

On a CPU onnxruntime computes FP16 models in FP32 and rounds inputs, weights and outputs alone: what a GPU
loses in between, up to infinity, would never be seen. So the loss is rehearsed: by the source with
every value rounded to FP16 on its way.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

import numpy as np
import onnx

from engine_builder import onnx_model, rewrite
from engine_builder.contract import Precision
from engine_builder.onnx_precision import refusal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FULL, _HALF = "tensor(float)", "tensor(float16)"
_MIXED = frozenset({"Resize", "GroupNorm", "SkipGroupNorm"})
"""Operators some of whose inputs are always FP32, which the converter knows."""
_LARGEST = 65504.0
_LISTED = 3
_EXACT, _ROUNDED = "/exact", "/rounded"


def to_fp16(source: Path, target: Path, *, keep_io: bool) -> str:
    """Write the model at `source` with FP16 numbers to `target`; with `keep_io` its signature stays.

    Returns:
        A note on weights that FP16 cannot hold: empty where there are none.

    Raises:
        JobError: `UnsupportedPrecision`, where the converter gives up.
    """
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    model = rewrite.load(source)
    note = _note_on_range(model)
    blocked = sorted({*DEFAULT_OP_BLOCK_LIST, *without_fp16(model)})
    try:
        with quiet():
            converted = convert_float_to_float16(
                model, keep_io_types=keep_io, disable_shape_infer=True, op_block_list=blocked
            )
    except (OSError, MemoryError):
        raise
    except Exception as error:  # whatever the converter stumbles over
        message = f"the model cannot be converted ({type(error).__name__}: {str(error)[:500]})"
        raise refusal(Precision.FP16, f"{message}: keep FP32, or export it in FP16") from error
    rewrite.sort_nodes(converted.graph)
    rewrite.save(converted, target, large=rewrite.is_large(source))
    return note


def rehearse(source: Path, target: Path) -> None:
    """Write the model at `source` to `target`, computing in FP32 with every value rounded to FP16.

    Values inside of branches and loops are rounded when they leave them.
    """
    model = rewrite.load(source)
    graph = model.graph
    for tensor in graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            array = onnx.numpy_helper.to_array(tensor)
            cut = np.clip(array, -_LARGEST, _LARGEST).astype(np.float16).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(cut, tensor.name))
    kinds = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.value_info, *graph.output)}
    full = {name for name, kind in kinds.items() if kind == onnx.TensorProto.FLOAT}
    taken = {value.name: f"{value.name}{_ROUNDED}" for value in graph.input if value.name in full}
    nodes = [pair for name, rounded in taken.items() for pair in _rounding(name, rounded)]
    for node in graph.node:
        node.input[:] = [taken.get(name, name) for name in node.input]
        made = [name for name in node.output if name in full]
        node.output[:] = [f"{name}{_EXACT}" if name in made else name for name in node.output]
        nodes += [node, *(pair for name in made for pair in _rounding(f"{name}{_EXACT}", name))]
    del graph.node[:]
    graph.node.extend(nodes)
    rewrite.save(model, target, large=rewrite.is_large(source))


def _rounding(name: str, rounded: str) -> tuple[onnx.NodeProto, onnx.NodeProto]:
    half = f"{name}{_ROUNDED}-fp16"
    kinds = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    make = onnx.helper.make_node
    return make("Cast", [name], [half], to=kinds[0]), make("Cast", [half], [rounded], to=kinds[1])


def _note_on_range(model: onnx.ModelProto) -> str:
    """Name weights that are cut to the largest number of FP16: a cosine does not see the scale."""
    found = [t.name for t in model.graph.initializer if _is_beyond(t)]
    shown = ", ".join(found[:_LISTED]) + (", …" if len(found) > _LISTED else "")
    return f"weights beyond the range of FP16 were cut to {_LARGEST:.0f}: {shown}" if found else ""


def _is_beyond(tensor: onnx.TensorProto) -> bool:
    if tensor.data_type != onnx.TensorProto.FLOAT:
        return False
    numbers = onnx.numpy_helper.to_array(tensor)
    return bool((np.isfinite(numbers) & (np.abs(numbers) > _LARGEST)).any())


def without_fp16(model: onnx.ModelProto) -> set[str]:
    """Return the model's operators that take FP32, and in the model's opset no FP16."""
    opsets = {_domain(o.domain): o.version for o in model.opset_import}
    return {node.op_type for node in onnx_model.all_nodes(model) if _lacks_fp16(node, opsets)}


def _lacks_fp16(node: onnx.NodeProto, opsets: dict[str, int]) -> bool:
    domain = _domain(node.domain)
    if node.op_type in _MIXED or domain not in opsets:
        return False
    try:
        schema = onnx.defs.get_schema(node.op_type, opsets[domain], domain)
    except onnx.defs.SchemaError:  # onnxruntime's own: whether it takes FP16 shows when it is loaded
        return False
    allowed = {each.type_param_str: set(each.allowed_type_strs) for each in schema.type_constraints}
    used = (*zip(schema.inputs, node.input, strict=False), *zip(schema.outputs, node.output, strict=False))
    kinds = [allowed.get(parameter.type_str, {parameter.type_str}) for parameter, name in used if name]
    return any(_FULL in kind and _HALF not in kind for kind in kinds)


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the converters' advice to developers out of the job's log."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
