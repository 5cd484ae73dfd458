"""The sample model's own input and the answer that the onnx wheel ships for it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

RELATIVE, ABSOLUTE = 1e-3, 1e-7
"""Tolerances of the wheel's own test runner for its model tests."""


@dataclass(frozen=True)
class Sample:
    """One request and the right answer to it."""

    input_name: str
    input: NDArray[np.float32]
    output_name: str
    expected: NDArray[np.float32]

    def is_right(self, answer: NDArray[Any]) -> bool:
        """Tell whether an answer is the expected one, within the tolerances."""
        same_shape = answer.shape == self.expected.shape
        return bool(same_shape and np.allclose(answer, self.expected, rtol=RELATIVE, atol=ABSOLUTE))

    @property
    def spread(self) -> float:
        """Return by how much the expected values differ among themselves."""
        return float(np.ptp(self.expected))

    def error(self, answer: NDArray[Any]) -> float:
        """Return the largest absolute difference from the expected answer."""
        if answer.shape != self.expected.shape:
            return float("inf")
        return float(np.max(np.abs(answer.astype(np.float64) - self.expected)))


def light_resnet50() -> Sample:
    """Return the sample of `light_resnet50`.

    The wheel ships outputs without inputs: its runner (`onnx.backend.test.runner`, without
    `random`) makes the input from its shape, as the numbers 0 to n-1 divided by n.
    """
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    graph = onnx.load(folder / "light_resnet50.onnx").graph
    weights = {tensor.name for tensor in graph.initializer}
    entry = next(found for found in graph.input if found.name not in weights)
    shape = [dimension.dim_value or 1 for dimension in entry.type.tensor_type.shape.dim]
    count = int(np.prod(shape))
    output = onnx.TensorProto()
    output.ParseFromString((folder / "light_resnet50_output_0.pb").read_bytes())
    return Sample(
        input_name=entry.name,
        input=(np.arange(count).reshape(shape) / count).astype(np.float32),
        output_name=graph.output[0].name,
        expected=numpy_helper.to_array(output).astype(np.float32),
    )
