"""The models of the onnx wheel, with the inputs and the answers that it ships for them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

DATA = Path(onnx.__file__).parent / "backend/test/data"
FOLDERS = ("light", "pytorch-operator", "pytorch-converted", "simple")

Arrays = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class WheelModel:
    """One model: `name` is folder and name, `data` the directory with its inputs and answers."""

    name: str
    path: Path
    data: Path

    def inputs(self) -> Arrays | None:
        """Return the inputs that the wheel ships, by name; None where it ships others than tensors."""
        if self.name.startswith("light/"):
            return self._ramp()
        return _by_name(_names(self.path, "input"), self.data, "input")

    def answers(self) -> Arrays | None:
        """Return the answers to them."""
        names = _names(self.path, "output")
        if self.name.startswith("light/"):
            return {names[0]: _array(self.data / f"{self.path.stem}_output_0.pb")}
        return _by_name(names, self.data, "output")

    def _ramp(self) -> Arrays:
        """Return the input of the light nets: a ramp from 0 to 1."""
        (name,) = _names(self.path, "input")
        shape = (1, 3, 224, 224)
        return {name: (np.arange(np.prod(shape)) / np.prod(shape)).astype(np.float32).reshape(shape)}


def models() -> list[WheelModel]:
    """Return all models of the wheel's folders, in their order."""
    found = [WheelModel(f"light/{p.stem}", p, p.parent) for p in sorted((DATA / "light").glob("*.onnx"))]
    for folder in FOLDERS[1:]:
        for path in sorted((DATA / folder).glob("*/model.onnx")):
            name = f"{folder}/{path.parent.name.removeprefix('test_')}"
            found.append(WheelModel(name, path, path.parent / "test_data_set_0"))
    return found


def _names(path: Path, side: str) -> list[str]:
    graph = onnx.load_model(path, load_external_data=False).graph
    constants = {tensor.name for tensor in graph.initializer}
    return [value.name for value in getattr(graph, side) if value.name not in constants]


def _by_name(names: list[str], folder: Path, side: str) -> Arrays | None:
    arrays = [_array(folder / f"{side}_{number}.pb") for number in range(len(names))]
    return None if any(a is None for a in arrays) else dict(zip(names, arrays, strict=True))


def _array(path: Path) -> Any:
    if not path.exists():
        return None
    try:
        return numpy_helper.to_array(TensorProto.FromString(path.read_bytes()))
    except (TypeError, ValueError):  # a sequence, or nothing at all
        return None
