"""Builders of small real models, engines and manifests."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engine_builder import files, store
from engine_builder.contract import ModelTree, Signature, StoreManifest, Tensor, TreeManifest
from engine_builder.volume import Layout

KEY = "ab" * 32
ENGINE = "onnxruntime-0123456789abcdef"
LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"


def value(name: str, kind: int = TensorProto.FLOAT, shape: Any = (1, 4)) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def a_model(
    nodes: Any = None,
    *,
    inputs: Any = None,
    outputs: Any = None,
    initializers: Any = (),
    opsets: Any = (("", 17),),
    functions: Any = (),
    ir_version: int = 8,
) -> onnx.ModelProto:
    """Build a model; by default `y = relu(x)`."""
    graph = helper.make_graph(
        nodes or [helper.make_node("Relu", ["x"], ["y"], name="relu")],
        "graph",
        inputs or [value("x")],
        outputs or [value("y")],
        initializer=list(initializers),
    )
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(d, v) for d, v in opsets],
        functions=list(functions),
        ir_version=ir_version,
    )


def saved(model: onnx.ModelProto, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return path


def external_tensor(name: str, location: str, *, offset: int = 0, length: int | None = 16) -> TensorProto:
    """Build a tensor of 4 floats whose bytes lie in another file."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[1, 4])
    tensor.data_location = TensorProto.EXTERNAL
    entries = {"location": location, "offset": str(offset)}
    if length is not None:
        entries["length"] = str(length)
    for key, text in entries.items():
        tensor.external_data.add(key=key, value=text)
    return tensor


def a_model_with_external_data(location: str = "weights.bin", **kwargs: Any) -> onnx.ModelProto:
    """Build `y = x + w` with `w` in another file."""
    return a_model(
        [helper.make_node("Add", ["x", "w"], ["y"])], initializers=[external_tensor("w", location, **kwargs)]
    )


def saved_with_external_data(folder: Path, location: str = "weights.bin") -> Path:
    (folder / location).parent.mkdir(parents=True, exist_ok=True)
    (folder / location).write_bytes(np.arange(4, dtype=np.float32).tobytes())
    return saved(a_model_with_external_data(location), folder / "model.onnx")


def a_constant(name: str, array: Any) -> TensorProto:
    return numpy_helper.from_array(np.asarray(array), name)


def an_engine(
    layout: Layout, name: str = ENGINE, *, key: str = KEY, content: bytes = b"model"
) -> StoreManifest:
    """Put a complete entry into the store, without any model library."""
    layout.make()
    with store.staging(layout, f"make-{name}") as place:
        files.write_file(place / store.MODEL_FILE, content)
        files.write_file(place / store.REPORT_FILE, b'{"engine": "' + name.encode() + b'"}')
        return store.publish(layout, place, store.seal(place, a_draft(name, key=key)))


def a_draft(name: str = ENGINE, *, key: str = KEY) -> StoreManifest:
    return StoreManifest(
        engine=name,
        key=key,
        source_sha256=hashlib.sha256(b"source").hexdigest(),
        prepare_version=1,
        files={},
        size_bytes=0,
        signature=Signature((Tensor("x", "FP32", (-1, 4)),), (Tensor("y", "FP32", (-1, 4)),)),
    )


def a_manifest(**models: Any) -> TreeManifest:
    """Build a manifest: name → (config, {version: engine})."""
    return TreeManifest(
        tuple(ModelTree(name, config, versions) for name, (config, versions) in models.items())
    )


def everything(root: Path) -> dict[str, tuple[str, int]]:
    """Return every path with what it is and its time: equal means untouched."""
    found = {}
    for path in sorted(root.rglob("*")):
        if path.is_symlink():
            what = f"-> {path.readlink()}"
        else:
            what = "directory" if path.is_dir() else path.read_bytes().decode(errors="replace")
        found[str(path.relative_to(root))] = (what, path.lstat().st_mtime_ns)
    return found
