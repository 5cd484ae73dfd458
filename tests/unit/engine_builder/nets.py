"""Small nets with weights, of which a precision can take something away, and data for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from tests.unit.engine_builder.models import a_constant, a_model, saved, value


def weights(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def a_net(*, opset: int = 17, size: int = 8, hidden: int = 16) -> onnx.ModelProto:
    """Build a classifier of images: Conv, Relu, GlobalAveragePool, Gemm."""
    nodes = [
        helper.make_node("Conv", ["images", "kernel", "kernel_bias"], ["features"], name="conv"),
        helper.make_node("Relu", ["features"], ["positive"], name="relu"),
        helper.make_node("GlobalAveragePool", ["positive"], ["pooled"], name="pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], name="flatten"),
        helper.make_node("Gemm", ["flat", "matrix", "matrix_bias"], ["scores"], name="gemm", transB=1),
    ]
    constants = {
        "kernel": weights(hidden, 3, 3, 3),
        "kernel_bias": weights(hidden, seed=1),
        "matrix": weights(10, hidden, seed=2),
        "matrix_bias": weights(10, seed=3),
    }
    return a_model(
        nodes,
        inputs=[value("images", shape=["batch", 3, size, size])],
        outputs=[value("scores", shape=["batch", 10])],
        initializers=[a_constant(name, array) for name, array in constants.items()],
        opsets=[("", opset)],
    )


def a_chain(*nodes: Any, shape: Any = ("batch", 4), constants: dict[str, Any] | None = None) -> Any:
    """Build a model from `x` to `y` of one shape."""
    return a_model(
        list(nodes),
        inputs=[value("x", shape=list(shape))],
        outputs=[value("y", shape=list(shape))],
        initializers=[a_constant(name, array) for name, array in (constants or {}).items()],
    )


def an_overflowing_net() -> onnx.ModelProto:
    """Build `y = 300 * (300 * x)`: more than FP16 holds where x is near 1."""
    return a_chain(
        helper.make_node("Mul", ["x", "factor"], ["much"]),
        helper.make_node("Mul", ["much", "factor"], ["y"]),
        constants={"factor": np.float32(300)},
    )


def a_half_net() -> onnx.ModelProto:
    """Build a model whose weights are FP16 already."""
    kind = TensorProto.FLOAT16
    return a_model(
        [helper.make_node("MatMul", ["x", "matrix"], ["y"])],
        inputs=[value("x", kind, ["batch", 4])],
        outputs=[value("y", kind, ["batch", 4])],
        initializers=[a_constant("matrix", weights(4, 4).astype(np.float16))],
    )


def images(count: int, *, size: int = 8, seed: int = 0) -> Any:
    """Return inputs of `a_net` with negative numbers among them, unlike made-up ones."""
    return weights(count, 3, size, size, seed=seed + 100)


def calibration_file(path: Path, count: int = 12) -> Path:
    np.savez(path, images=images(count))
    return path


def saved_net(folder: Path, **kwargs: Any) -> Path:
    return saved(a_net(**kwargs), folder / "model.onnx")


def saved_with_weights_beside(folder: Path) -> Path:
    """Save the net with its weights in another file."""
    (folder / "weights").mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    onnx.save_model(
        a_net(hidden=64), str(path), save_as_external_data=True, location="weights/all.bin", size_threshold=64
    )
    return path
