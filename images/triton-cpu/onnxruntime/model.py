"""A Triton backend that serves ONNX models with onnxruntime on the CPU.

Triton's Python backend runs this file for every model whose configuration says
`backend: "onnxruntime"`, in a process per instance. The layout of a model is that of Triton's
own onnxruntime backend: `<model>/config.pbtxt` and `<model>/<version>/model.onnx`.
"""  # noqa: INP001

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]  # Triton has it
from batching import Arrays, Question, answer
from options import session_options
from signature import UnservableModelError, check, complete, max_batch_size, tensor_of

FILENAME = "model.onnx"


class TritonPythonModel:
    """One instance of one version of a model."""

    @staticmethod
    def auto_complete_config(config: Any) -> Any:
        """Add the inputs and outputs that the configuration leaves out."""
        written = config.as_dict()
        if written.get("input") and written.get("output"):
            return config
        session = _open(file_of(_version_directory(), written, default=FILENAME), written)
        batched = max_batch_size(written) > 0
        if not written.get("input"):
            for tensor in complete(map(tensor_of, session.get_inputs()), batched=batched):
                config.add_input(tensor)
        if not written.get("output"):
            for tensor in complete(map(tensor_of, session.get_outputs()), batched=batched):
                config.add_output(tensor)
        return config

    def initialize(self, args: dict[str, str]) -> None:
        """Open the model and hold it against its configuration.

        Raises:
            TritonModelException: Triton shows its text as the reason why the version is not loaded.
        """
        config = json.loads(args["model_config"])
        directory = Path(args["model_repository"], args["model_version"])
        self.serve(file_of(directory, config, default=FILENAME), config)

    def serve(self, path: Path, config: dict[str, Any]) -> None:
        """Take this file for the model.

        Raises:
            TritonModelException: it can't be opened, or isn't what the configuration says.
        """
        self._batched = max_batch_size(config) > 0
        self._texts = {t["name"] for t in config.get("output", ()) if t["data_type"] == "TYPE_STRING"}
        self._session = _open(path, config)
        try:
            check(
                config,
                inputs=[tensor_of(node) for node in self._session.get_inputs()],
                outputs=[tensor_of(node) for node in self._session.get_outputs()],
            )
        except UnservableModelError as error:
            raise pb_utils.TritonModelException(f"{path}: {error}") from None

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer the requests of one batch, each with its outputs or its own error."""
        questions, responses = [], {}
        for index, request in enumerate(requests):
            try:
                questions.append(_question(index, request))
            except UnicodeDecodeError as error:
                responses[index] = _refusal(f"a BYTES element is not UTF-8: {error}")
        answers = answer(questions, run=self._run, batched=self._batched)
        for question in questions:
            responses[question.index] = self._response(question, answers[question.index])
        return [responses[index] for index in range(len(requests))]

    def _run(self, outputs: Any, inputs: Arrays) -> list[Any]:
        result: list[Any] = self._session.run(list(outputs), dict(inputs))
        return result

    def _response(self, question: Question, outcome: Any) -> Any:
        if isinstance(outcome, Exception):
            return _refusal(str(outcome))
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor(name, _encoded(array) if name in self._texts else np.ascontiguousarray(array))
                for name, array in zip(question.outputs, outcome, strict=True)
            ]
        )


def file_of(directory: Path, config: dict[str, Any], *, default: str) -> Path:
    """Return the file that a version is served from.

    Raises:
        TritonModelException: it is not there.
    """
    # the version directory is a link into the store, and external data lies beside the real file
    path = (directory / (config.get("default_model_filename") or default)).resolve()
    if not path.is_file():
        raise pb_utils.TritonModelException(f"{directory} has no file {path.name}")
    return path


def _open(path: Path, config: dict[str, Any]) -> Any:
    try:
        return onnxruntime.InferenceSession(
            str(path), sess_options=session_options(config), providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # noqa: BLE001 - onnxruntime's errors share no base class
        raise pb_utils.TritonModelException(f"onnxruntime cannot open {path}: {error}") from None


def _question(index: int, request: Any) -> Question:
    inputs = {tensor.name(): _decoded(tensor.as_numpy()) for tensor in request.inputs()}
    return Question(index, tuple(request.requested_output_names()), inputs)


def _decoded(array: Any) -> Any:
    """Turn Triton's bytes into the text that onnxruntime takes; numbers stay as they are."""
    if array.dtype != np.object_:
        return array
    return np.array([item.decode() for item in array.ravel()], dtype=np.object_).reshape(array.shape)


def _encoded(array: Any) -> Any:
    return np.array([str(item).encode() for item in array.ravel()], dtype=np.object_).reshape(array.shape)


def _refusal(message: str) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, pb_utils.TritonError.INVALID_ARG))


def _version_directory() -> Path:
    # the Python backend tells a model's path to its instances only; when it asks for the
    # configuration, the path stands nowhere but in the arguments of this process
    arguments = Path("/proc/self/cmdline").read_text(encoding="utf-8").split("\0")
    return Path(arguments[1]).parent
