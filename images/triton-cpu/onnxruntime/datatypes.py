"""onnxruntime's tensors in Triton's words."""  # noqa: INP001

from __future__ import annotations

from typing import Any

from signature import Tensor, UnservableModelError

DATATYPES = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(uint16)": "TYPE_UINT16",
    "tensor(uint32)": "TYPE_UINT32",
    "tensor(uint64)": "TYPE_UINT64",
    "tensor(int8)": "TYPE_INT8",
    "tensor(int16)": "TYPE_INT16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float16)": "TYPE_FP16",
    "tensor(float)": "TYPE_FP32",
    "tensor(double)": "TYPE_FP64",
    "tensor(string)": "TYPE_STRING",
}
"""Triton's datatype for each of onnxruntime's. BF16 has no numpy type and is left out."""


def tensor_of(node: Any) -> Tensor:
    """Read one of onnxruntime's `NodeArg`s.

    Raises:
        UnservableModelError: a type that Triton's Python backend cannot carry.
    """
    if node.type not in DATATYPES:
        raise UnservableModelError(f"tensor '{node.name}' is a {node.type}, which this backend cannot serve")
    dims = tuple(dim if isinstance(dim, int) and dim >= 0 else -1 for dim in node.shape)
    return Tensor(node.name, DATATYPES[node.type], dims)
