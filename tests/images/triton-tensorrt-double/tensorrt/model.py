"""A stand-in for Triton's TensorRT backend where there is no GPU: looks at plans, answers by their models.

Triton's Python backend runs this file for every model whose configuration says `backend: "tensorrt"`.
What it has in common with the backend `onnxruntime` of the same image comes from there.
"""

from __future__ import annotations

import json
from pathlib import Path

import onnx_backend  # type: ignore[import-not-found]  # the model.py of the backend onnxruntime
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]  # Triton has it
from plan import UnservablePlanError, model_behind
from served import file_of  # type: ignore[import-not-found]
from signature import max_batch_size

FILENAME = "model.plan"


class TritonPythonModel(onnx_backend.TritonPythonModel):  # type: ignore[misc]  # not there for mypy
    """One instance of one version of a model."""

    def initialize(self, args: dict[str, str]) -> None:
        """Look at the plan, and open the model that it was compiled from.

        Raises:
            TritonModelException: Triton shows its text as the reason why the version is not loaded.
        """
        config = json.loads(args["model_config"])
        directory = Path(args["model_repository"], args["model_version"])
        plan = file_of(directory, config, default=FILENAME)
        try:
            model = model_behind(plan, max_batch_size=max_batch_size(config))
        except UnservablePlanError as error:
            raise pb_utils.TritonModelException(f"unable to load plan file {plan}: {error}") from None
        self.serve(model, config)
