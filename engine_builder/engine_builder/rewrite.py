"""What converters of an ONNX have in common: reading it with its weights, and writing it.

Needs the `onnx` package. Everything that is written depends on the model alone.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from typing import TYPE_CHECKING

import onnx
import onnx.inliner
import onnx.version_converter

from engine_builder import files, onnx_model
from engine_builder.onnx_model import subgraphs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FIRST_WITHOUT_INPUTS = 4
"""IR version since which constants need not be inputs as well."""
_LARGE = 64 << 10
"""Bytes of a constant above which it can't decide over a shape."""
_MOST_EMBEDDED = 1 << 30
"""Larger weights lie in a file beside the model: protobuf ends at 2 GiB."""


def load(path: Path) -> onnx.ModelProto:
    """Read a model with its weights and the types of its inner values.

    Functions are inlined, and constants that are inputs too are constants only: nobody sends them.
    """
    model = onnx_model.parse(path)
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    _drop_constant_inputs(model)
    model = _typed(model)
    onnx.load_external_data_for_model(model, str(path.parent))
    return model


def _drop_constant_inputs(model: onnx.ModelProto) -> None:
    constants = {tensor.name for tensor in model.graph.initializer}
    kept = [value for value in model.graph.input if value.name not in constants]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    model.ir_version = max(model.ir_version, _FIRST_WITHOUT_INPUTS)


def _typed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Infer types without the weights, which inference would copy several times."""
    held = {n: t.raw_data for n, t in enumerate(model.graph.initializer) if len(t.raw_data) > _LARGE}
    for number in held:
        model.graph.initializer[number].ClearField("raw_data")
    try:
        typed = onnx.shape_inference.infer_shapes(model)
    except Exception:  # noqa: BLE001 - several classes of the native module; what it means shows later
        typed = model
    for number, content in held.items():
        typed.graph.initializer[number].raw_data = content
    return typed


def is_large(path: Path) -> bool:
    """Tell whether what a model is converted to keeps its weights in a file of their own."""
    return path.stat().st_size > _MOST_EMBEDDED or bool(onnx_model.externals(path))


def save(model: onnx.ModelProto, path: Path, *, large: bool) -> None:
    """Write a model; the weights of a `large` one into a file beside it."""
    if large:
        onnx.save_model(
            model, str(path), save_as_external_data=True, location=f"{path.name}.data", size_threshold=1024
        )
    else:
        onnx.save_model(model, str(path))


def open_up(place: Path) -> None:
    """Let every uid read what lies in a directory."""
    for path in place.rglob("*"):
        path.chmod(files.DIRECTORY_MODE if path.is_dir() else files.FILE_MODE)


def at_opset(model: onnx.ModelProto, lowest: int) -> onnx.ModelProto:
    """Return the model with ONNX's operators of this opset at least.

    Raises:
        RuntimeError: an operator can't be brought there.
    """
    version = next((o.version for o in model.opset_import if o.domain in {"", "ai.onnx"}), lowest)
    return model if version >= lowest else onnx.version_converter.convert_version(model, lowest)


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Put nodes behind those whose outputs they read; where that leaves a choice the order stays."""
    nodes = list(graph.node)
    makers = {output: n for n, node in enumerate(nodes) for output in node.output if output}
    waits = [{makers[name] for name in _reads(node) if name in makers} for node in nodes]
    readers: defaultdict[int, list[int]] = defaultdict(list)
    for number, awaited in enumerate(waits):
        for maker in awaited:
            readers[maker].append(number)
    ready = [number for number, awaited in enumerate(waits) if not awaited]
    ordered: list[onnx.NodeProto] = []
    while ready:  # a list in order is a heap
        number = heapq.heappop(ready)
        ordered.append(nodes[number])
        for reader in readers[number]:
            waits[reader].discard(number)
            if not waits[reader]:
                heapq.heappush(ready, reader)
    del graph.node[:]
    graph.node.extend(ordered)


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """Yield what a node reads, in its subgraphs too."""
    yield from node.input
    for graph in subgraphs(node):
        for inner in graph.node:
            yield from _reads(inner)
        yield from (output.name for output in graph.output)
