"""Small ONNX models that say by their answer which one they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 4


def write_multiply(path: Path, factor: float, *, batch: str | int = "batch") -> Path:
    """Write a model that multiplies `x` (FP32, [batch, 4]) by a factor into `y`."""
    shape = [batch, SIZE]
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        "multiply",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.array(factor, dtype=np.float32), "factor")],
    )
    return _save(graph, path)


def write_unknown_operator(path: Path) -> Path:
    """Write a model with an operator that no runtime has."""
    shape = ["batch", SIZE]
    graph = helper.make_graph(
        [helper.make_node("NoSuchOperator", ["x"], ["y"], domain="com.example")],
        "unknown",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    return _save(graph, path, domains=("com.example",))


def write_external(path: Path, *, location: str) -> Path:
    """Write a model whose factor lies in another file, at `location` relative to the model."""
    write_multiply(path, 2.0)
    model = onnx.load(path)
    factor = model.graph.initializer[0]
    factor.ClearField("raw_data")
    factor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "4")):
        factor.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    return path


def _save(graph: onnx.GraphProto, path: Path, *, domains: tuple[str, ...] = ()) -> Path:
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(domain, 1) for domain in domains)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
    return path
