"""Session options of onnxruntime from the configuration of a model.

The parameter names are those that Triton's own onnxruntime backend documents, so a config.pbtxt
means the same here: https://github.com/triton-inference-server/onnxruntime_backend
"""  # noqa: INP001

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnxruntime

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_THREADS = 1
"""Threads of one request. Pods share cores; several instances use more of them than one does."""

_LEVELS = {
    -1: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    0: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
    1: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


def session_options(config: Mapping[str, Any]) -> Any:
    """Build `SessionOptions` from the parameters and `optimization.graph.level`.

    Raises:
        ValueError: a parameter is not the number it should be.
    """
    parameters = {key: str(value["string_value"]) for key, value in config.get("parameters", {}).items()}
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = _number(parameters, "intra_op_thread_count", default=DEFAULT_THREADS)
    options.inter_op_num_threads = _number(parameters, "inter_op_thread_count", default=1)
    if _number(parameters, "execution_mode", default=0):
        options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    options.enable_cpu_mem_arena = bool(_number(parameters, "enable_mem_arena", default=1))
    options.enable_mem_pattern = bool(_number(parameters, "enable_mem_pattern", default=1))
    level = int(config.get("optimization", {}).get("graph", {}).get("level", 0))
    options.graph_optimization_level = _LEVELS.get(level, _LEVELS[0])
    # waiting threads would otherwise burn the cores of the neighbours
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    for key, value in parameters.items():
        if key.startswith("session."):
            options.add_session_config_entry(key, value)
    return options


def _number(parameters: Mapping[str, str], name: str, *, default: int) -> int:
    text = parameters.get(name, str(default))
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"parameter '{name}' is not a number: {text!r}") from None
