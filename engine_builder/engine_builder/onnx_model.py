"""What an ONNX file is: parsed, checked, its references to other files, its signature.

Needs the `onnx` package. Works on our own copy of the model.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import onnx
from onnx import TensorProto

from engine_builder.contract import Reason, Signature, Tensor
from engine_builder.errors import JobError
from engine_builder.fetch import External

if TYPE_CHECKING:
    from pathlib import Path

TRITON_TYPES: Mapping[int, str] = {
    TensorProto.BOOL: "BOOL",
    TensorProto.UINT8: "UINT8",
    TensorProto.UINT16: "UINT16",
    TensorProto.UINT32: "UINT32",
    TensorProto.UINT64: "UINT64",
    TensorProto.INT8: "INT8",
    TensorProto.INT16: "INT16",
    TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT64",
    TensorProto.FLOAT16: "FP16",
    TensorProto.BFLOAT16: "BF16",
    TensorProto.FLOAT: "FP32",
    TensorProto.DOUBLE: "FP64",
    TensorProto.STRING: "BYTES",
}

_INFERENCE_BYTES = 256 << 20
"""Shape inference copies the model several times in memory: larger ones go without."""
_IN_MEMORY = "_ORT_MEM_ADDR_"
"""A location by which onnxruntime reads its own memory at an address that the file gives."""
_BEGINNINGS = (
    (b"version https://git-lfs", "a Git LFS pointer: fetch the real file with `git lfs pull`"),
    (b"PK\x03\x04", "a zip archive, as PyTorch saves: export it with torch.onnx.export"),
    (b"\x80\x02", "a Python pickle: export it as ONNX"),
    (b"\x89HDF", "an HDF5 file, as Keras saves: convert it with tf2onnx"),
    (b"\x1f\x8b", "gzip: unpack it"),
    (b"<", "a web page or XML: download the file itself"),
)


@dataclasses.dataclass(frozen=True)
class Contents:
    """What stands in the report about a model."""

    producer: str
    ir_version: int
    opsets: Mapping[str, int]
    operators: Mapping[str, int]
    parameters: int


def parse(path: Path) -> onnx.ModelProto:
    """Parse a model without its external data.

    Raises:
        JobError: `InvalidModel`, saying what the file looks like instead.
    """
    try:
        model = onnx.load_model(path, format="protobuf", load_external_data=False)
    except OSError:
        raise
    except Exception as error:  # protobuf's own error class differs by its version
        raise _not_onnx(path) from error
    if not model.HasField("graph") or not model.ir_version:
        raise _not_onnx(path)
    return model


def _not_onnx(path: Path) -> JobError:
    with path.open("rb") as file:
        beginning = file.read(256)
    return JobError(Reason.INVALID_MODEL, f"the source is not an ONNX model: it is {_looks_like(beginning)}")


def _looks_like(beginning: bytes) -> str:
    if not beginning:
        return "empty"
    for start, what in _BEGINNINGS:
        if beginning.startswith(start):
            return what
    if all(byte in b"\t\n\r" or ord(" ") <= byte <= ord("~") for byte in beginning):
        return f"text, beginning with {beginning[:40].decode()!r}"
    if beginning[:1] == b"\x08":
        return "truncated or damaged: copy it again and compare its sha256"
    return "something else, or damaged"


def tensors(message: Any) -> Iterator[TensorProto]:
    """Yield every tensor anywhere in a message: initializers, attributes, subgraphs, functions."""
    if isinstance(message, TensorProto):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if isinstance(value, Sequence) or hasattr(value, "add") else (value,):
                yield from tensors(part)


def nodes(message: Any) -> Iterator[onnx.NodeProto]:
    """Yield every node of a model with those of subgraphs and functions."""
    for node in message.node:
        yield node
        for graph in subgraphs(node):
            yield from nodes(graph)


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the graphs that a node holds: bodies of loops, branches."""
    for attribute in node.attribute:
        yield from (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else []))


def all_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Yield every node of the main graph, subgraphs and functions."""
    yield from nodes(model.graph)
    for function in model.functions:
        yield from nodes(function)


def externals(path: Path) -> list[External]:
    """Return a model's references to other files.

    Raises:
        JobError: `InvalidModel`, `UnsafeSource`.
    """
    return [
        _external(tensor) for tensor in tensors(parse(path)) if tensor.data_location == TensorProto.EXTERNAL
    ]


def _external(tensor: TensorProto) -> External:
    entries = [(e.key, e.value) for e in tensor.external_data]
    keys = dict(entries)
    if len(keys) != len(entries) or not keys.get("location"):
        raise JobError(
            Reason.INVALID_MODEL,
            f"tensor {tensor.name!r}: its external data names no location, or something twice",
        )
    if _IN_MEMORY in keys["location"]:
        raise JobError(Reason.UNSAFE_SOURCE, f"tensor {tensor.name!r} points into memory, not to a file")
    length = keys.get("length")
    return External(
        tensor=tensor.name,
        name=keys["location"],
        offset=_natural(tensor, keys.get("offset", "0")),
        length=None if length is None else _natural(tensor, length),
    )


def _natural(tensor: TensorProto, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise JobError(
            Reason.INVALID_MODEL,
            f"tensor {tensor.name!r}: {text!r} is not an offset or length of external data",
        )
    return int(text)


def check(path: Path) -> None:
    """Run the ONNX checker on a model with its external data.

    Raises:
        JobError: `InvalidModel`, or `UnsupportedOperator` for one that ONNX does not have.
    """
    try:
        onnx.checker.check_model(str(path))
    except onnx.checker.ValidationError as error:
        text = " ".join(str(error).split())
        unknown = "No Op registered" in text or "No opset import" in text
        reason = Reason.UNSUPPORTED_OPERATOR if unknown else Reason.INVALID_MODEL
        raise JobError(reason, f"the ONNX checker refuses the model: {text}") from error


def infer_shapes(model: onnx.ModelProto) -> tuple[onnx.ModelProto, str]:
    """Return the model with the shapes that can be inferred, and a note on what is wrong with them.

    onnxruntime serves models whose inner shapes contradict themselves, so that is no fault.
    """
    if model.ByteSize() > _INFERENCE_BYTES:
        return model, ""
    try:
        return onnx.shape_inference.infer_shapes(model, strict_mode=True), ""
    except Exception as error:  # noqa: BLE001 - several classes of the native module
        return model, f"shape inference: {' '.join(str(error).split())[:300]}"


def signature(model: onnx.ModelProto) -> Signature:
    """Read inputs (those that are not initializers) and outputs.

    Raises:
        JobError: `InvalidModel` for what Triton has no tensor for.
    """
    given = {i.name for i in model.graph.initializer} | {
        i.values.name for i in model.graph.sparse_initializer
    }
    inputs = tuple(_tensor(v, "input") for v in model.graph.input if v.name not in given)
    outputs = tuple(_tensor(v, "output") for v in model.graph.output)
    if not outputs:
        raise JobError(Reason.INVALID_MODEL, "the model has no outputs")
    if not inputs:
        raise JobError(
            Reason.INVALID_MODEL, "the model has no inputs but constants: Triton cannot send it a request"
        )
    return Signature(inputs=inputs, outputs=outputs)


def _tensor(value: onnx.ValueInfoProto, what: str) -> Tensor:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        name = (kind or "nothing").removesuffix("_type")
        raise JobError(
            Reason.INVALID_MODEL,
            f"{what} {value.name!r} is of type {name}: Triton exchanges tensors only; export the model "
            "without it (scikit-learn: option zipmap=False)",
        )
    tensor = value.type.tensor_type
    if tensor.elem_type not in TRITON_TYPES:
        raise JobError(
            Reason.INVALID_MODEL,
            f"{what} {value.name!r} has element type {_element(tensor.elem_type)}, "
            "which Triton does not exchange",
        )
    if not tensor.HasField("shape"):
        raise JobError(
            Reason.INVALID_MODEL,
            f"{what} {value.name!r} has no shape: export the model with its rank at least",
        )
    return Tensor(value.name, TRITON_TYPES[tensor.elem_type], tuple(_size(d) for d in tensor.shape.dim))


def _element(number: int) -> str:
    try:
        return str(TensorProto.DataType.Name(number))
    except ValueError:
        return str(number)


def _size(dimension: Any) -> int:
    fixed = dimension.WhichOneof("value") == "dim_value" and dimension.dim_value >= 0
    return int(dimension.dim_value) if fixed else -1


def contents(model: onnx.ModelProto) -> Contents:
    """Summarise a model for the report."""
    names = Counter(f"{n.domain}::{n.op_type}" if n.domain else n.op_type for n in all_nodes(model))
    return Contents(
        producer=f"{model.producer_name} {model.producer_version}".strip()[:200],
        ir_version=model.ir_version,
        opsets={o.domain or "ai.onnx": o.version for o in model.opset_import},
        operators=dict(names.most_common()),
        parameters=sum(math.prod(t.dims) for t in tensors(model)),
    )
