"""What TensorRT's own parser says of a model, asked beside the builder."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import onnx

from engine_builder.compilers import api
from engine_builder.isolation import isolated

COMPILER = api.RTX
"""TensorRT for RTX: it builds for GPUs that aren't there."""


@dataclasses.dataclass(frozen=True)
class Said:
    """Whether it takes the model; operators that it lacks; inputs whose values it takes for a shape."""

    supported: bool
    lacking: frozenset[str] = frozenset()
    shape_inputs: frozenset[str] = frozenset()


def ask(model: Path) -> Said:
    """Ask in a child process, since TensorRT may crash on what it reads."""
    return isolated(_ask, model)


def version() -> str:
    """Return the compiler's version."""
    return isolated(_version)


def _version() -> str:
    return api.load(COMPILER).version


def _ask(model: Path) -> Said:
    trt = api.load(COMPILER).trt
    logger = trt.Logger(trt.Logger.INTERNAL_ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    supported = parser.supports_model_v2(model.read_bytes())
    lacking = {name for name in _operators(model) if not parser.supports_operator(name)}
    return Said(supported, frozenset(lacking), _shape_inputs(trt, builder, logger, model))


def _operators(model: Path) -> set[str]:
    return {node.op_type for node in onnx.load_model(model, load_external_data=False).graph.node}


def _shape_inputs(trt: Any, builder: Any, logger: Any, model: Path) -> frozenset[str]:
    """Only a network tells, and this parser has looked at a model already."""
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    parser.parse_from_file(str(model))
    tensors = (network.get_input(index) for index in range(network.num_inputs))
    return frozenset(str(tensor.name) for tensor in tensors if tensor.is_shape_tensor)
