"""onnxruntime on the CPU: open a session for a model, and say clearly why one cannot be opened."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import onnxruntime

from engine_builder.contract import Reason
from engine_builder.errors import JobError
from engine_builder.onnx_model import all_nodes

if TYPE_CHECKING:
    import onnx

_OPERATOR = (
    re.compile(r"(?:(?P<domain>[\w.]+):)?(?P<op>\w+)\(-?\d+\) is not a registered function/op"),
    re.compile(r"No Op registered for (?P<op>\w+)"),
    re.compile(r"Could not find an implementation for (?:(?P<domain>[\w.]+)\.)?(?P<op>\w+)\(\d+\)"),
)
_OPSET = re.compile(
    r"Opset (\d+) is under development.*support for domain (\S+) is till opset (\d+)", re.DOTALL
)
_NOISE = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : |/onnxruntime_src/\S+:\d+ [^\n]*?\) ")


def open_session(path: Path, model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """Load a model into onnxruntime; `model` is its parsed form, to name nodes in errors.

    Raises:
        JobError: `UnsupportedOperator` or `InvalidModel`.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors come as exceptions
    options.use_deterministic_compute = True
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.intra_op_num_threads = available_cores()
    options.inter_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's classes share no base of their own
        raise _explain(str(error), model) from error


def _explain(text: str, model: onnx.ModelProto) -> JobError:
    if opset := _OPSET.search(text):
        return JobError(
            Reason.UNSUPPORTED_OPERATOR,
            f"the model uses opset {opset[1]} of {opset[2]} and onnxruntime supports up to {opset[3]}: "
            "export it with a lower opset",
        )
    for pattern in _OPERATOR:
        if found := pattern.search(text):
            groups = found.groupdict()
            return _unsupported(groups.get("domain") or "", groups["op"], model)
    return JobError(Reason.INVALID_MODEL, f"onnxruntime cannot load the model: {clean(text)}")


def _unsupported(domain: str, operator: str, model: onnx.ModelProto) -> JobError:
    wanted = "" if domain in {"ai.onnx", ""} else domain
    users = [n for n in all_nodes(model) if n.op_type == operator and n.domain in {wanted, domain}]
    node = next((n.name or f"making {', '.join(n.output)}" for n in users), "")
    return JobError(
        Reason.UNSUPPORTED_OPERATOR,
        f"onnxruntime has no operator {wanted + '::' if wanted else ''}{operator}"
        f"{f' (node {node!r}, {len(users)} in all)' if node else ''}: "
        "export the model with standard operators or another opset",
    )


def clean(text: str) -> str:
    """Return onnxruntime's message without places of its source code."""
    return " ".join(_NOISE.sub("", text).split())


def available_cores() -> int:
    """Return the cores that this process may use, cgroup limits included."""
    cores = len(os.sched_getaffinity(0))
    for quota, period in (_cgroup_v2(), _cgroup_v1()):
        if quota > 0 and period > 0:
            cores = min(cores, max(1, round(quota / period)))
    return cores


def _cgroup_v2() -> tuple[float, float]:
    words = _read(Path("/sys/fs/cgroup/cpu.max")).split()
    return (float(words[0]), float(words[1])) if len(words) > 1 and words[0] != "max" else (0, 0)


def _cgroup_v1() -> tuple[float, float]:
    folder = Path("/sys/fs/cgroup/cpu")
    return (
        float(_read(folder / "cpu.cfs_quota_us") or 0),
        float(_read(folder / "cpu.cfs_period_us") or 0),
    )


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
