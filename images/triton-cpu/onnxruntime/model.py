"""A Triton backend that serves ONNX models with onnxruntime on the CPU.

Triton's Python backend runs this file for every model whose configuration says
`backend: "onnxruntime"`, in a process per instance. The layout of a model is that of Triton's
own onnxruntime backend: `<model>/config.pbtxt` and `<model>/<version>/model.onnx`.
"""  # noqa: INP001

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime
from datatypes import tensor_of
from options import session_options
from served import Config, Opened, ServedModel


class TritonPythonModel(ServedModel):
    """One instance of one version of a model."""

    filename = "model.onnx"

    @classmethod
    def open(cls, path: Path, config: Config) -> Opened:
        """Open a model with the session options of its configuration."""
        session = onnxruntime.InferenceSession(
            str(path), sess_options=session_options(config), providers=["CPUExecutionProvider"]
        )

        def run(outputs: Any, inputs: Any) -> list[Any]:
            result: list[Any] = session.run(list(outputs), dict(inputs))
            return result

        return Opened(
            inputs=[tensor_of(node) for node in session.get_inputs()],
            outputs=[tensor_of(node) for node in session.get_outputs()],
            run=run,
        )
