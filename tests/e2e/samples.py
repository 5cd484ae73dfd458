"""Nets of the onnx wheel with the answers that it ships, and bad or large models to try."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.runner import Runner

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
RELATIVE, ABSOLUTE = 1e-3, 1e-7
"""Tolerances of the wheel's own runner for these nets."""


@dataclasses.dataclass(frozen=True)
class Sample:
    """A net, its input as the wheel's runner makes it, and the answer that the wheel ships."""

    path: Path
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]

    def compare(self, answers: dict[str, np.ndarray]) -> None:
        """Fail when an answer is not the one that the wheel ships."""
        for name, expected in self.outputs.items():
            np.testing.assert_allclose(answers[name], expected, rtol=RELATIVE, atol=ABSOLUTE)


def light(name: str) -> Sample:
    """Return one of the wheel's `light` nets, such as `resnet50`."""
    path = LIGHT / f"light_{name}.onnx"
    graph = onnx.load(path).graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = {
        each.name: Runner.generate_dummy_data(each, random=False)
        for each in graph.input
        if each.name not in weights
    }
    outputs = {
        each.name: numpy_helper.to_array(_tensor(LIGHT / f"light_{name}_output_{index}.pb"))
        for index, each in enumerate(graph.output)
    }
    return Sample(path=path, inputs=inputs, outputs=outputs)


def write_large(path: Path, size: int) -> Path:
    """Write a model of so many bytes, which no compression makes smaller."""
    width = size // 4
    noise = np.random.default_rng(0).random(width, dtype=np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["x", "noise"], ["products"]),
            helper.make_node("ReduceSum", ["products"], ["y"], keepdims=1),
        ],
        "large",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1])],
        [numpy_helper.from_array(noise.reshape(1, width), "noise")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def _tensor(path: Path) -> onnx.TensorProto:
    tensor = onnx.TensorProto()
    tensor.ParseFromString(path.read_bytes())
    return tensor
