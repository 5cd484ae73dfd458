"""The user's own samples or calibration data: an .npz file of NumPy with inputs of a model. Needs numpy.

Its keys are the model's inputs, and every array is what a request would carry, batch included:

    np.savez("samples.npz", tokens=tokens, mask=mask)

A model with a batch dimension is asked row by row, so `tokens` may hold any number of rows, and
`mask` as many. For other models one such set is one sample, and more are told apart by a number
before the name:

    np.savez("samples.npz", **{"0/image": first, "1/image": second})

Types and shapes are the model's, text is of NumPy's type `str`, and nothing is pickled. NaN and
infinity are passed on as they are: where the model answers with them, nothing is compared.
"""

from __future__ import annotations

import dataclasses
import math
import re
import zipfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine_builder.contract import Reason
from engine_builder.errors import EngineBuilderError, JobError
from engine_builder.files import human
from engine_builder.reference import DTYPES, Input
from engine_builder.reference_file import Arrays

MOST_SAMPLES = 256
_NUMBERED = re.compile(r"([0-9]{1,6})/(.+)", re.DOTALL)
_LISTED = 5
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


@dataclasses.dataclass(frozen=True)
class Purpose:
    """What a file is for: its field in the spec, the reason when it is wrong, and how many it may hold."""

    field: str
    reason: Reason
    most_samples: int


CHECK = Purpose(field="check.samples", reason=Reason.INVALID_SAMPLES, most_samples=MOST_SAMPLES)


class _InvalidError(EngineBuilderError):
    """What is wrong with the file, wherever it was named."""


def load(
    path: Path, inputs: Sequence[Input], *, batched: bool, most_bytes: int, purpose: Purpose = CHECK
) -> list[Arrays]:
    """Return the samples that a user wrote for a model with these inputs, one request each.

    `batched` tells that the first dimension of all inputs counts rows.

    Raises:
        JobError: the purpose's reason, with the array and what it must be.
    """
    try:
        return _load(path, inputs, batched=batched, most_bytes=most_bytes, most_samples=purpose.most_samples)
    except _InvalidError as error:
        raise JobError(purpose.reason, f"{purpose.field}: {error}") from error


def _load(
    path: Path, inputs: Sequence[Input], *, batched: bool, most_bytes: int, most_samples: int
) -> list[Arrays]:
    arrays = _arrays(path, most_bytes)
    samples: list[Arrays] = []
    for number, group in _groups(arrays, {i.name for i in inputs}):
        given = {i.name: _value(group[i.name], i, at=number, batched=batched) for i in inputs}
        rows = _count_rows(given, at=number) if batched else 1
        if len(samples) + rows > most_samples:
            raise _InvalidError(f"there are more than {most_samples} samples: keep the telling ones")
        samples += [_row(given, n) for n in range(rows)] if batched else [given]
    return samples


def _arrays(path: Path, most_bytes: int) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            _require_size(archive, most_bytes)
            return {m.filename.removesuffix(".npy"): _array(archive, m) for m in archive.infolist()}
    except (_InvalidError, OSError, MemoryError):
        raise
    except Exception as error:  # zipfile, zlib and numpy each have several of their own
        raise _InvalidError(
            f"the file cannot be read as .npz ({error}): write it with numpy.savez"
        ) from error


def _require_size(archive: zipfile.ZipFile, most_bytes: int) -> None:
    size = sum(member.file_size for member in archive.infolist())
    if size > most_bytes:
        raise _InvalidError(f"unpacked they hold {human(size)} and at most {human(most_bytes)} are allowed")


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Any:
    """Read an array whose header promises no more than there is: memory is taken by the promise."""
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"{member.filename} has version {version} of the format")
        shape, _, dtype = _HEADERS[version](file)
        rest = member.file_size - file.tell()
    if dtype.hasobject:
        raise _InvalidError(
            f"{member.filename} holds Python objects, which only unpickling could read, and that runs "
            "code of the file: save text as array.astype(str), and numbers as a type of NumPy's"
        )
    if math.prod(shape) * dtype.itemsize != rest:
        raise ValueError(f"{member.filename} holds {rest} bytes, which is not what its shape {shape} needs")
    with archive.open(member) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _groups(arrays: Mapping[str, Any], names: Collection[str]) -> list[tuple[str, dict[str, Any]]]:
    """Return the sets of arrays, each with what is put before a name in it."""
    numbered = [_NUMBERED.fullmatch(key) for key in arrays]
    if not arrays or arrays.keys() & names or not all(numbered):
        groups = {"": dict(arrays)}
    else:
        groups = {}
        for found in sorted(filter(None, numbered), key=lambda found: int(found[1])):
            groups.setdefault(f"{found[1]}/", {})[found[2]] = arrays[found[0]]
    for prefix, group in groups.items():
        _require_names(prefix, group, names)
    return list(groups.items())


def _require_names(prefix: str, found: Collection[str], names: Collection[str]) -> None:
    missing, unknown = sorted(set(names) - set(found)), sorted(set(found) - set(names))
    if missing or unknown:
        faults = [
            f"lacks {_listed(prefix, missing)}" if missing else "",
            f"holds {_listed(prefix, unknown)}, no input of the model" if unknown else "",
        ]
        raise _InvalidError(
            f"the file {' and '.join(filter(None, faults))}: it needs one array for each of "
            f"{_listed('', sorted(names))}, or <number>/<input> for several samples"
        )


def _listed(prefix: str, names: Sequence[str]) -> str:
    shown = ", ".join(prefix + name for name in names[:_LISTED])
    return f"{shown}, …" if len(names) > _LISTED else shown


def _value(array: Any, wanted: Input, *, at: str, batched: bool) -> Any:
    """Return an array as the model takes it."""
    name, dtype = f"{at}{wanted.name}", np.dtype(DTYPES[wanted.kind])
    if dtype.kind == "O":
        if array.dtype.kind != "U":
            raise _InvalidError(f"{name} is {array.dtype.name}, the model takes text: use array.astype(str)")
    elif array.dtype.name != dtype.name:
        raise _InvalidError(
            f"{name} is {array.dtype.name}, the model takes {dtype.name}: use array.astype('{dtype.name}')"
        )
    if not _fits(array.shape, wanted.shape, batched=batched):
        shape = ", ".join(str(d) if isinstance(d, int) else "any" for d in wanted.shape)
        raise _InvalidError(
            f"{name} has shape {list(array.shape)}, the model takes [{shape}], batch included"
        )
    return np.ascontiguousarray(array, dtype=dtype).reshape(array.shape)


def _fits(shape: Sequence[int], wanted: Sequence[int | str | None], *, batched: bool) -> bool:
    fixed = {n: size for n, size in enumerate(wanted) if isinstance(size, int) and size >= 0}
    if batched:
        fixed.pop(0, None)
    return len(shape) == len(wanted) and all(shape[n] == size for n, size in fixed.items())


def _count_rows(given: Arrays, *, at: str) -> int:
    rows = {name: len(array) for name, array in given.items()}
    if len(set(rows.values())) > 1:
        counts = ", ".join(f"{at}{name}: {count}" for name, count in rows.items())
        raise _InvalidError(f"the arrays have different numbers of rows ({counts}); give all the same batch")
    count = next(iter(rows.values()))
    if not count:
        raise _InvalidError("the arrays hold no row: give one sample at least")
    return count


def _row(given: Arrays, number: int) -> Arrays:
    return {name: array[number : number + 1] for name, array in given.items()}
