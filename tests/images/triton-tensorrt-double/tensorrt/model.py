"""A stand-in for Triton's TensorRT backend where there is no GPU: looks at plans, answers by their models.

Triton's Python backend runs this file for every model whose configuration says `backend: "tensorrt"`.
What it has in common with the backend `onnxruntime` of the same image comes from there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx_backend  # type: ignore[import-not-found]  # the model.py of the backend onnxruntime
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]  # Triton has it
from plan import UnservablePlanError, model_behind
from signature import max_batch_size


class TritonPythonModel(onnx_backend.TritonPythonModel):  # type: ignore[misc]  # not there for mypy
    """One instance of one version of a model."""

    filename = "model.plan"

    def serve(self, path: Path, config: dict[str, Any]) -> None:
        """Look at the plan, and take the model that it was compiled from.

        Raises:
            TritonModelException: Triton shows its text as the reason why the version is not loaded.
        """
        try:
            model = model_behind(path, max_batch_size=max_batch_size(config))
        except UnservablePlanError as error:
            raise pb_utils.TritonModelException(f"unable to load plan file {path}: {error}") from None
        super().serve(model, config)
