"""A Triton backend that serves OpenVINO's models (and ONNX) on the CPU.

Triton's Python backend runs this file for every model whose configuration says
`backend: "openvino"`, in a process per instance. The layout of a model is that of Triton's own
OpenVINO backend: `<model>/config.pbtxt` and `<model>/<version>/model.xml`, `model.bin` beside it.
"""  # noqa: INP001

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import openvino
from served import Config, Opened, ServedModel
from signature import Tensor, UnservableModelError

DATATYPES = {
    "boolean": "TYPE_BOOL",
    "u8": "TYPE_UINT8",
    "u16": "TYPE_UINT16",
    "u32": "TYPE_UINT32",
    "u64": "TYPE_UINT64",
    "i8": "TYPE_INT8",
    "i16": "TYPE_INT16",
    "i32": "TYPE_INT32",
    "i64": "TYPE_INT64",
    "f16": "TYPE_FP16",
    "f32": "TYPE_FP32",
}
"""Triton's datatype for each of OpenVINO's that its own backend serves."""
THREADS = "INFERENCE_NUM_THREADS"
"""Parameter of Triton's own backend. Pods share cores: one thread by default."""
EXACT = {"INFERENCE_PRECISION_HINT": "f32"}
"""The same answers on every CPU: where one has bfloat16, OpenVINO uses it unasked."""


class TritonPythonModel(ServedModel):
    """One instance of one version of a model."""

    filename = "model.xml"

    @classmethod
    def open(cls, path: Path, config: Config) -> Opened:
        """Compile a model for the CPU."""
        parameters = config.get("parameters", {})
        threads = int(parameters.get(THREADS, {}).get("string_value", 1))
        compiled = openvino.Core().compile_model(path, "CPU", {THREADS: threads, **EXACT})

        def run(outputs: Any, inputs: Any) -> list[Any]:
            answers = compiled(dict(inputs))
            return [np.array(answers[name]) for name in outputs]  # the runtime's own memory is used again

        return Opened(
            inputs=[_tensor_of(port) for port in compiled.inputs],
            outputs=[_tensor_of(port) for port in compiled.outputs],
            run=run,
        )


def _tensor_of(port: Any) -> Tensor:
    """Read one of OpenVINO's inputs or outputs.

    Raises:
        UnservableModelError: a type that Triton's own backend doesn't serve.
    """
    name, kind = port.get_any_name(), port.get_element_type().get_type_name()
    if kind not in DATATYPES:
        raise UnservableModelError(f"tensor '{name}' is a {kind}, which this backend cannot serve")
    dims = tuple(-1 if dim.is_dynamic else int(dim.get_length()) for dim in port.get_partial_shape())
    return Tensor(cast("str", name), DATATYPES[kind], dims)
