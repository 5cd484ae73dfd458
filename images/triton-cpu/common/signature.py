"""What a model takes and gives: the tensors of its file against those of config.pbtxt.

Pure: plain values in, plain values out. `Config` is Triton's model configuration in its JSON
form, as the Python backend hands it over (enums as `TYPE_FP32`, 64-bit numbers as text).
"""  # noqa: INP001

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


class UnservableModelError(ValueError):
    """The model and its configuration don't fit; the text is what Triton shows as the load error."""


@dataclasses.dataclass(frozen=True)
class Tensor:
    """An input or output of the file, with the batch dimension; -1 where a dimension is free."""

    name: str
    datatype: str
    dims: tuple[int, ...]


def check(config: Mapping[str, Any], *, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
    """Refuse a configuration that the model cannot answer to.

    Raises:
        UnservableModelError: names the tensor and both sides of the difference.
    """
    batched = max_batch_size(config) > 0
    required = {tensor["name"] for tensor in config.get("input", ())}
    missing = [tensor.name for tensor in inputs if tensor.name not in required]
    if missing:
        raise UnservableModelError(
            f"the model needs inputs that the configuration lacks: {', '.join(missing)}"
        )
    if batched:
        _check_batch_dimension([*inputs, *outputs])
    for kind, wanted, present in (
        ("input", config.get("input", ()), inputs),
        ("output", config.get("output", ()), outputs),
    ):
        for tensor in wanted:
            _check_tensor(kind, tensor, present, batched=batched)


def _check_batch_dimension(tensors: Iterable[Tensor]) -> None:
    for tensor in tensors:
        if not tensor.dims or tensor.dims[0] != -1:
            raise UnservableModelError(
                f"max_batch_size is above 0, but tensor '{tensor.name}' has no free first dimension: "
                f"its shape is {list(tensor.dims)}"
            )


def _check_tensor(kind: str, wanted: Mapping[str, Any], present: Sequence[Tensor], *, batched: bool) -> None:
    name = wanted["name"]
    found = next((tensor for tensor in present if tensor.name == name), None)
    if found is None:
        names = ", ".join(tensor.name for tensor in present)
        raise UnservableModelError(f"the model has no {kind} '{name}'; it has: {names}")
    if wanted["data_type"] != found.datatype:
        raise UnservableModelError(
            f"{kind} '{name}' is {found.datatype} in the model and {wanted['data_type']} in the configuration"
        )
    dims = [int(dim) for dim in wanted.get("reshape", {}).get("shape", wanted["dims"])]
    expected = found.dims[1:] if batched else found.dims
    if not _fits(dims, expected):
        raise UnservableModelError(
            f"{kind} '{name}' has dims {list(expected)} in the model and {dims} in the configuration"
        )


def _fits(dims: Sequence[int], expected: Sequence[int]) -> bool:
    return len(dims) == len(expected) and all(
        -1 in (ours, theirs) or ours == theirs for ours, theirs in zip(dims, expected, strict=True)
    )


def max_batch_size(config: Mapping[str, Any]) -> int:
    """Return the largest batch that Triton may ask for; 0 when shapes carry no batch dimension."""
    return int(config.get("max_batch_size", 0))


def complete(tensors: Iterable[Tensor], *, batched: bool) -> list[dict[str, Any]]:
    """Give the configuration's entries for tensors that it leaves out."""
    return [
        {
            "name": tensor.name,
            "data_type": tensor.datatype,
            "dims": list(tensor.dims[1:] if batched else tensor.dims),
        }
        for tensor in tensors
    ]
