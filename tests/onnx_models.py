"""Small ONNX models that say by their answer which one they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 4


def write_multiply(path: Path, factor: float, *, batch: str | int = "batch", size: int = SIZE) -> Path:
    """Write a model that multiplies `x` (FP32, [batch, size]) by a factor into `y`."""
    shape = [batch, size]
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        "multiply",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.array(factor, dtype=np.float32), "factor")],
    )
    return _save(graph, path)


def write_dense(path: Path, *, size: int = SIZE) -> Path:
    """Write a model of that signature that multiplies `x` by a matrix, which FP16 and INT8 round."""
    matrix = np.random.default_rng(0).normal(size=(size, size)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "matrix"], ["y"])]
    constants = [numpy_helper.from_array(matrix, "matrix")]
    return _save(_like_multiply("dense", nodes, constants, size=size), path)


def write_cancelling(path: Path, *, size: int = SIZE) -> Path:
    """Write a model of that signature of whose answers INT8 leaves nothing.

    Large weights cancel each other and small ones remain.
    """
    random = np.random.default_rng(0)
    large, small = random.normal(size=(size, size)) * 1000, random.normal(size=(size, size)) / 10
    matrix = np.concatenate([large, small - large]).astype(np.float32)
    nodes = [
        helper.make_node("Concat", ["x", "x"], ["twice"], axis=1),
        helper.make_node("MatMul", ["twice", "matrix"], ["y"]),
    ]
    constants = [numpy_helper.from_array(matrix, "matrix")]
    return _save(_like_multiply("cancelling", nodes, constants, size=size), path)


def write_random(path: Path, *, size: int = SIZE) -> Path:
    """Write a model with the inputs and outputs of `write_multiply` whose every answer is another one."""
    nodes = [helper.make_node("RandomNormalLike", ["x"], ["y"], scale=100.0)]
    return _save(_like_multiply("random", nodes, size=size), path)


def write_not_a_number(path: Path, *, size: int = SIZE) -> Path:
    """Write a model of that signature that answers with NaN, every time in other places."""
    nodes = [
        helper.make_node("RandomNormalLike", ["x"], ["noise"]),
        helper.make_node("Sqrt", ["noise"], ["y"]),
    ]
    return _save(_like_multiply("not_a_number", nodes, size=size), path)


def write_memory_hungry(path: Path, *, size: int = SIZE, megabytes: int = 1600) -> Path:
    """Write a small model that takes so much memory when onnxruntime loads it, and none afterwards.

    What is constant onnxruntime computes once at the start; it holds the numbers twice then. It
    leaves alone what is larger than 1 GiB.
    """
    nodes = [
        _constant("numbers", value=1e-9),
        helper.make_node("ReduceSum", ["numbers"], ["factor"], keepdims=0),
        helper.make_node("Mul", ["x", "factor"], ["y"]),
    ]
    shapes = [_shape("numbers", [megabytes * 1_000_000 // 8])]
    return _save(_like_multiply("memory_hungry", nodes, shapes, size=size), path)


def write_slow(path: Path, *, size: int = SIZE, edge: int = 129) -> Path:
    """Write a small model that onnxruntime takes seconds to load, on one core and with little memory.

    The time grows with the square of `edge`, of the kernel of a convolution of constants.
    """
    nodes = [
        _constant("image", value=1e-3),
        _constant("kernel", value=1e-3),
        helper.make_node("Conv", ["image", "kernel"], ["convolved"]),
        helper.make_node("ReduceMean", ["convolved"], ["factor"], keepdims=0),
        helper.make_node("Mul", ["x", "factor"], ["y"]),
    ]
    shapes = [_shape("image", [1, 1, 2048, 2048]), _shape("kernel", [1, 1, edge, edge])]
    return _save(_like_multiply("slow", nodes, shapes, size=size), path)


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


def write_determinant(path: Path) -> Path:
    """Write a model with an operator that onnxruntime has and TensorRT lacks: it multiplies by 1."""
    nodes = [
        helper.make_node("Det", ["matrix"], ["factor"]),
        helper.make_node("Mul", ["x", "factor"], ["y"]),
    ]
    constants = [numpy_helper.from_array(np.eye(SIZE, dtype=np.float32), "matrix")]
    return _save(_like_multiply("determinant", nodes, constants, size=SIZE), path)


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


def _like_multiply(
    name: str, nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto] | None = None, *, size: int
) -> onnx.GraphProto:
    shape = ["batch", size]
    return helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        constants or [],
    )


def _constant(name: str, *, value: float) -> onnx.NodeProto:
    filled = numpy_helper.from_array(np.array([value], np.float32))
    return helper.make_node("ConstantOfShape", [f"{name}_shape"], [name], value=filled)


def _shape(name: str, sizes: list[int]) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(sizes, np.int64), f"{name}_shape")


def _save(graph: onnx.GraphProto, path: Path, *, domains: tuple[str, ...] = ()) -> Path:
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(domain, 1) for domain in domains)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
    return path
