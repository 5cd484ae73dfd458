"""The network that TensorRT reads from an ONNX file: what is wrong with it, its inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine_builder.compilers import explain
from engine_builder.contract import Reason, Signature, Tensor
from engine_builder.errors import JobError

if TYPE_CHECKING:
    from engine_builder.compilers.api import Api

_TYPES: Mapping[str, str] = {
    "FLOAT": "FP32",
    "HALF": "FP16",
    "BF16": "BF16",
    "INT8": "INT8",
    "UINT8": "UINT8",
    "INT32": "INT32",
    "INT64": "INT64",
    "BOOL": "BOOL",
}
"""TensorRT's types as Triton names them."""


def parse(api: Api, network: Any, logger: Any, model: Path, *, log: Sequence[str]) -> Any:
    """Read a model into an empty network; returns the parser, which must live as long as the network.

    `log` are the errors that the logger has taken, and takes meanwhile.

    Raises:
        JobError: `UnsupportedOperator`, `InvalidModel`, `UnsupportedPrecision`, …
    """
    parser = api.trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(model)):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        refusals = [_refusal(error) for error in errors]
        raise explain.parse_failure(refusals, version=api.version, log=log)
    if not network.num_outputs or not network.num_layers:  # an empty file is parsed without a word
        raise JobError(Reason.INVALID_MODEL, "the prepared model is empty: delete its Engine")
    return parser


def signature(network: Any, given: Signature) -> tuple[Signature, tuple[str, ...]]:
    """Return the signature of what is built, and notes on where it differs from the model's."""
    notes = list[str]()
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    found = Signature(_merged(given.inputs, inputs, notes), _merged(given.outputs, outputs, notes))
    return found, tuple(notes)


def shape_inputs(network: Any) -> frozenset[str]:
    """Return the inputs whose values TensorRT takes for a shape."""
    tensors = (network.get_input(index) for index in range(network.num_inputs))
    return frozenset(str(tensor.name) for tensor in tensors if tensor.is_shape_tensor)


def _merged(given: Sequence[Tensor], found: Sequence[Any], notes: list[str]) -> tuple[Tensor, ...]:
    """Return the tensors of the model that the network has, with the types it gives them."""
    types = {str(tensor.name): _TYPES.get(tensor.dtype.name, str(tensor.dtype.name)) for tensor in found}
    merged = []
    for tensor in given:
        if tensor.name not in types:
            notes.append(f"{tensor.name!r} is unused and not part of the plan")
            continue
        if types[tensor.name] != tensor.datatype:
            notes.append(
                f"{tensor.name!r} is {tensor.datatype} in the model and {types[tensor.name]} in the plan"
            )
        merged.append(Tensor(tensor.name, types[tensor.name], tensor.shape))
    return tuple(merged)


def _refusal(error: Any) -> explain.Refusal:
    return explain.Refusal(
        code=str(getattr(error.code(), "name", error.code())),
        text=str(error.desc()),
        node=int(error.node()),
        node_name=str(error.node_name()),
        operator=str(error.node_operator()),
    )
