"""Small real ONNX models that TensorRT builds or refuses, and prepared engines that hold them."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from tests.unit.engine_builder.models import a_constant, a_model, value

from engine_builder import files, onnx_model, store
from engine_builder.contract import StoreManifest

if TYPE_CHECKING:
    from engine_builder.volume import Layout

PREPARED = "onnxruntime-fedcba9876543210"
SIZE = 4


def weights(*shape: int, kind: Any = np.float32) -> Any:
    return (np.random.default_rng(5).standard_normal(shape) * 0.1).astype(kind)


def a_matmul(kind: int = TensorProto.FLOAT, *, batch: Any = "N", size: int = SIZE) -> onnx.ModelProto:
    """Build `y = x w`, the network that needs a matrix multiplication in `kind`."""
    numbers = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16}[kind]
    return a_model(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")],
        inputs=[value("x", kind, (batch, size))],
        outputs=[value("y", kind, (batch, size))],
        initializers=[a_constant("w", weights(size, size, kind=numbers))],
    )


def a_relu(kind: int, **kwargs: Any) -> onnx.ModelProto:
    return a_model(inputs=[value("x", kind)], outputs=[value("y", kind)], **kwargs)


def an_image_model() -> onnx.ModelProto:
    """Build a convolution whose batch, height and width are free."""
    shape = ("N", 3, "H", "W")
    return a_model(
        [helper.make_node("Conv", ["images", "k"], ["y"], name="conv", pads=[1, 1, 1, 1])],
        inputs=[value("images", shape=shape)],
        outputs=[value("y", shape=("N", 8, "H", "W"))],
        initializers=[a_constant("k", weights(8, 3, 3, 3))],
    )


def a_reshape() -> onnx.ModelProto:
    """Build a model with an input that holds a shape."""
    return a_model(
        [helper.make_node("Reshape", ["x", "sizes"], ["y"], name="reshape")],
        inputs=[value("x", shape=(2, 4)), value("sizes", TensorProto.INT64, (2,))],
        outputs=[value("y", shape=("a", "b"))],
    )


def a_quantised_matmul(*, zero_point: int = 0, bias: bool = False) -> onnx.ModelProto:
    """Build a multiplication with static INT8 Q/DQ, and optionally what TensorRT refuses of it."""
    constants = {
        "s": np.float32(0.1),
        "z": np.int8(zero_point),
        "w": weights(SIZE, SIZE),
        "ws": np.float32(0.1),
        "wz": np.int8(0),
        "b": np.ones(SIZE, np.int32),
        "bs": np.float32(0.01),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"], name="x_q"),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"], name="x_dq"),
        helper.make_node("QuantizeLinear", ["w", "ws", "wz"], ["wq"], name="w_q"),
        helper.make_node("DequantizeLinear", ["wq", "ws", "wz"], ["wd"], name="w_dq"),
        helper.make_node("MatMul", ["xd", "wd"], ["m"], name="fc"),
        helper.make_node("DequantizeLinear", ["b", "bs"], ["bd"], name="b_dq"),
        helper.make_node("Add", ["m", "bd"], ["y"], name="add"),
    ]
    if not bias:
        nodes[5:] = [helper.make_node("Identity", ["m"], ["y"])]
    return a_model(
        nodes,
        inputs=[value("x", shape=(1, SIZE))],
        outputs=[value("y", shape=(1, SIZE))],
        initializers=[a_constant(name, number) for name, number in constants.items()],
    )


def an_fp8_matmul(size: int = 16) -> onnx.ModelProto:
    zero = helper.make_tensor("z", TensorProto.FLOAT8E4M3FN, [], [0.0])
    return a_model(
        [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"], name="x_q"),
            helper.make_node("DequantizeLinear", ["xq", "s"], ["xd"], name="x_dq"),
            helper.make_node("QuantizeLinear", ["w", "s", "z"], ["wq"], name="w_q"),
            helper.make_node("DequantizeLinear", ["wq", "s"], ["wd"], name="w_dq"),
            helper.make_node("MatMul", ["xd", "wd"], ["y"], name="fc"),
        ],
        inputs=[value("x", shape=(size, size))],
        outputs=[value("y", shape=(size, size))],
        initializers=[a_constant("s", np.float32(0.1)), zero, a_constant("w", weights(size, size))],
        opsets=(("", 19),),
        ir_version=9,
    )


def a_deep_model(layers: int = 800, *, channels: int = 32) -> onnx.ModelProto:
    """Build a chain of convolutions that takes TensorRT seconds, and little else."""
    names = ["x", *(f"r{number}" for number in range(layers - 1)), "y"]
    nodes = []
    for number, (taken, made) in enumerate(itertools.pairwise(names)):
        convolved = f"c{number}"
        conv = helper.make_node("Conv", [taken, "k"], [convolved], name=f"conv{number}", pads=[1] * 4)
        nodes += [conv, helper.make_node("Relu", [convolved], [made], name=f"relu{number}")]
    shape = (1, channels, 16, 16)
    return a_model(
        nodes,
        inputs=[value("x", shape=shape)],
        outputs=[value("y", shape=shape)],
        initializers=[a_constant("k", weights(channels, channels, 3, 3))],
    )


def a_model_that_grows(size: int = 700) -> onnx.ModelProto:
    """Build a small model whose plan holds size² numbers: TensorRT computes what is constant."""
    return a_model(
        [
            helper.make_node("Mul", ["row", "column"], ["w"], name="grow"),
            helper.make_node("MatMul", ["x", "w"], ["y"], name="fc"),
        ],
        inputs=[value("x", shape=("N", size))],
        outputs=[value("y", shape=("N", size))],
        initializers=[a_constant("row", weights(1, size)), a_constant("column", weights(size, 1))],
    )


def a_prepared(
    layout: Layout,
    model: onnx.ModelProto,
    *,
    content: bytes | None = None,
    name: str = PREPARED,
    **extra: bytes,
) -> StoreManifest:
    """Put a model into the store as `prepare` does, but unchecked; `content` replaces its bytes."""
    layout.make()
    with store.staging(layout, f"make-{name}") as place:
        written = model.SerializeToString() if content is None else content
        files.write_file(place / store.MODEL_FILE, written)
        files.write_file(place / store.REFERENCE_FILE, b"reference answers")
        for other, more in extra.items():
            files.write_file(place / other, more)
        draft = StoreManifest(
            engine=name,
            key="cd" * 32,
            source_sha256="ef" * 32,
            prepare_version=1,
            files={},
            size_bytes=0,
            signature=onnx_model.signature(model),
            sample_shapes={"x": (1, SIZE)},
        )
        return store.publish(layout, place, store.seal(place, draft))
