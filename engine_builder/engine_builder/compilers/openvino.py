"""OpenVINO: a prepared ONNX model in the format that Triton's OpenVINO backend loads.

Runs in a child process (see `isolation`). What that backend refuses is refused here, with a name:
https://github.com/triton-inference-server/openvino_backend
"""

from __future__ import annotations

import dataclasses
import errno
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine_builder.contract import Reason, Signature, Tensor
from engine_builder.errors import JobError
from engine_builder.progress import Progress

DATATYPES = {
    "boolean": "BOOL",
    "u8": "UINT8",
    "u16": "UINT16",
    "u32": "UINT32",
    "u64": "UINT64",
    "i8": "INT8",
    "i16": "INT16",
    "i32": "INT32",
    "i64": "INT64",
    "f16": "FP16",
    "f32": "FP32",
}
"""OpenVINO's element types that the backend serves → Triton's datatypes."""

_ADVICE = "export it with standard operators or another opset, or serve it with backend ONNXRuntime"
_LONGEST = 600


@dataclasses.dataclass(frozen=True)
class Converted:
    """What came of a model: OpenVINO's version and build, inputs and outputs as it has them."""

    version: str
    signature: Signature
    seconds: Mapping[str, float]


def convert(model: Path, target: Path, signature: Signature) -> Converted:
    """Write a model's graph to `target`, and its weights beside it; the numbers stay as they are.

    Raises:
        JobError: `UnsupportedOperator`, and what to do.
        OSError: the volume is full.
    """
    progress = Progress()
    with progress.step("import"):
        import openvino
    core = openvino.Core()
    try:
        with progress.step("convert"):
            network = core.read_model(model)
            found = Signature(
                inputs=_named(network.inputs, signature.inputs),
                outputs=_named(network.outputs, signature.outputs),
            )
            openvino.save_model(network, target, compress_to_fp16=False)
        with progress.step("load"):  # what is published does load
            core.compile_model(target, "CPU")
    except (JobError, OSError, MemoryError):
        raise
    except Exception as error:  # OpenVINO's errors share no other base class
        _require_room(target.parent)
        raise JobError(
            Reason.UNSUPPORTED_OPERATOR, f"OpenVINO refuses the model: {_told(error)}: {_ADVICE}"
        ) from error
    return Converted(openvino.get_version(), found, progress.seconds)


def _named(ports: Sequence[Any], wanted: Iterable[Tensor]) -> tuple[Tensor, ...]:
    """Return inputs or outputs as OpenVINO has them, each under the one name that it has in ONNX."""
    return tuple(_tensor(_port(ports, tensor.name), tensor.name) for tensor in wanted)


def _port(ports: Sequence[Any], name: str) -> Any:
    found = [port for port in ports if name in port.get_names()]
    if len(found) != 1:
        raise _unservable(name, "OpenVINO has no tensor of its own for it")
    found[0].get_tensor().set_names({name})
    return found[0]


def _tensor(port: Any, name: str) -> Tensor:
    kind, shape = port.get_element_type().get_type_name(), port.get_partial_shape()
    if kind not in DATATYPES:
        raise _unservable(name, f"its type is {kind}")
    if shape.rank.is_dynamic or shape.rank.get_length() == 0:
        raise _unservable(name, f"its shape is {shape}")
    if any(dim.is_dynamic and dim.get_max_length() != -1 for dim in shape):
        raise _unservable(name, f"its shape is {shape}, with a limit")
    return Tensor(name, DATATYPES[kind], tuple(-1 if dim.is_dynamic else dim.get_length() for dim in shape))


def _unservable(name: str, why: str) -> JobError:
    return JobError(
        Reason.UNSUPPORTED_OPERATOR,
        f"Triton's OpenVINO backend does not serve tensor {name!r}: {why}; export the model another way, or "
        "serve it with backend ONNXRuntime",
    )


def _told(error: Exception) -> str:
    """Return OpenVINO's message without places of its source code."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = " ".join(line for line in lines if line and not line.startswith(("Exception from", "Check '")))
    return told[:_LONGEST].rstrip(":. ")


def _require_room(place: Path) -> None:
    """Raise what a full volume is to others: OpenVINO calls it anything."""
    if os.statvfs(place).f_bavail == 0:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
