"""The tensors of the Triton double's protocol: what is asked, what is answered, and when it is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor, triton_to_np_dtype

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.integration.triton_repository import Version

CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


class Refused(Exception):
    """A call that ends with a status other than OK."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code


def feeds(request: Any, version: Version) -> dict[str, np.ndarray]:
    """Return the inputs of a request by name.

    Raises:
        Refused: they are not what the model takes.
    """
    expected = {tensor.name: tensor for tensor in version.config.input}
    found: dict[str, np.ndarray] = {}
    for position, given in enumerate(request.inputs):
        name = request.model_name
        if given.name not in expected:
            raise _invalid(f"unexpected inference input '{given.name}' for model '{name}'")
        tensor = expected[given.name]
        if given.datatype != datatype(tensor):
            data = f"data-type is '{given.datatype}', but model '{name}' expects '{datatype(tensor)}'"
            raise _invalid(f"inference input '{given.name}' {data}")
        _check_shape(list(given.shape), name=name, version=version, tensor=tensor)
        found[given.name] = _array(request, given, position=position)
    return found


def _check_shape(given: list[int], *, name: str, version: Version, tensor: Any) -> None:
    wanted = shape_of(version, tensor)
    limit = version.config.max_batch_size
    fits = len(given) == len(wanted) and all(w in (-1, g) for g, w in zip(given, wanted, strict=True))
    if not fits:
        expected, got = (str(shape).replace(" ", "") for shape in (wanted, given))
        text = (
            f"unexpected shape for input '{tensor.name}' for model '{name}'. Expected {expected}, got {got}."
        )
        raise _invalid(text)
    if limit and given[0] > limit:
        raise _invalid(f"inference request batch-size must be <= {limit} for '{name}'")


def _array(request: Any, given: Any, *, position: int) -> np.ndarray:
    shape = tuple(given.shape)
    if request.raw_input_contents:
        raw = request.raw_input_contents[position]
        if given.datatype == "BYTES":
            return deserialize_bytes_tensor(raw).reshape(shape)
        return np.frombuffer(raw, dtype=triton_to_np_dtype(given.datatype)).reshape(shape)
    values = list(getattr(given.contents, CONTENTS[given.datatype]))
    return np.array(values, dtype=triton_to_np_dtype(given.datatype)).reshape(shape)


def classified(answer: np.ndarray, count: int, labels: Sequence[str]) -> np.ndarray:
    """Return the highest classes of each row as `value:index:label`, or all values without a count."""
    if not count:
        return answer
    return np.array([[*_classes(row, count, labels)] for row in answer], dtype=np.object_)


def _classes(row: np.ndarray, count: int, labels: Sequence[str]) -> Iterator[bytes]:
    for index in np.argsort(-row, kind="stable")[:count]:
        label = f":{labels[index]}" if index < len(labels) else ""
        yield f"{row[index]:f}:{index}{label}".encode()


def add_output(response: Any, version: Version, name: str, values: np.ndarray) -> None:
    """Put an answer into a response."""
    kind = "BYTES" if values.dtype == np.object_ else _output_datatype(version, name)
    response.outputs.add(name=name, datatype=kind, shape=values.shape)
    response.raw_output_contents.append(_raw(values))


def _raw(values: np.ndarray) -> bytes:
    if values.dtype == np.object_:
        return bytes(serialize_byte_tensor(values).item())
    return np.ascontiguousarray(values).tobytes()


def _invalid(text: str) -> Refused:
    return Refused(grpc.StatusCode.INVALID_ARGUMENT, text)


def datatype(tensor: Any) -> str:
    """Return the type of an input or output in the words of the protocol."""
    name = model_config_pb2.DataType.Name(tensor.data_type).removeprefix("TYPE_")
    return "BYTES" if name == "STRING" else name


def _output_datatype(version: Version, name: str) -> str:
    return next(datatype(tensor) for tensor in version.config.output if tensor.name == name)


def shape_of(version: Version, tensor: Any) -> list[int]:
    """Return the shape of an input or output, with the batch in front."""
    return [-1, *tensor.dims] if version.config.max_batch_size else list(tensor.dims)
