"""Generated inputs and the source's own answers, to compare every engine and server with.

The same model always gives the same inputs. Needs onnxruntime.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from engine_builder.reference_file import Arrays, Sample
from engine_builder.runtime import clean

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import onnxruntime

SAMPLES = 3
_MOST_BYTES = 256 << 20
"""Of one sample's inputs, and of all answers that are kept."""
_ENOUGH_SECONDS = 20.0
"""When so much time has gone by, no further sample is run: a check must ask them all."""
_SIZES = (0, 32, 64, 128, 224, 256, 640, 1, 2, 3, 8)
"""Sizes to try for dynamic dimensions; 0 guesses by the rank."""
_IMAGE_RANK = 4
_HIGHEST = (10, 2, 1)
"""Bounds of generated integers to try: token numbers, flags, zeros only."""

DTYPES: Mapping[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int8)": np.int8,
    "tensor(int16)": np.int16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(uint8)": np.uint8,
    "tensor(uint16)": np.uint16,
    "tensor(uint32)": np.uint32,
    "tensor(uint64)": np.uint64,
    "tensor(bool)": np.bool_,
    "tensor(string)": np.object_,
}


@dataclasses.dataclass(frozen=True)
class Input:
    """An input as onnxruntime tells it: a dimension is a size, a symbol, or None."""

    name: str
    kind: str
    shape: tuple[int | str | None, ...]


@dataclasses.dataclass(frozen=True)
class Kinds:
    """Types of a model's inputs and outputs by name, as onnxruntime calls them (`tensor(float)`)."""

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Reference:
    """Samples, none where no generated input worked, and what a reader should know of them."""

    samples: tuple[Sample, ...]
    notes: tuple[str, ...] = ()
    size: int = 0
    highest: int = 0
    """With which size of dynamic dimensions and bound of integers the inputs were made."""


def answer(session: onnxruntime.InferenceSession) -> Reference:
    """Find inputs that the model accepts and run them."""
    inputs = inputs_of(session)
    if kind := not_exchanged(session):
        return Reference((), (f"no reference answers: onnxruntime exchanges no {kind} with Python",))
    problem = "every input is too large"
    for size, highest in _attempts(inputs):
        if _bytes(inputs, size) > _MOST_BYTES:
            continue
        try:
            found = tuple(run(session, _made(inputs, size=size, highest=highest, count=SAMPLES)))
        except Exception as error:  # noqa: BLE001 - its classes share no base of their own
            problem = clean(str(error))
            continue
        return Reference(found, _notes(found), size, highest)
    return Reference((), (f"no reference answers: no generated input worked ({problem[:300]})",))


def inputs_of(session: onnxruntime.InferenceSession) -> list[Input]:
    """Return what a model takes."""
    return [Input(i.name, i.type, tuple(i.shape)) for i in session.get_inputs()]


def not_exchanged(session: onnxruntime.InferenceSession) -> str | None:
    """Return a type of the model's inputs or outputs that no NumPy array can hold."""
    kinds = {value.type for value in (*session.get_inputs(), *session.get_outputs())}
    return min(kinds - DTYPES.keys(), default=None)


def _attempts(inputs: Sequence[Input]) -> Iterator[tuple[int, int]]:
    """Yield sizes and bounds, as many as can make a difference."""
    free = any(not isinstance(d, int) for i in inputs for d in i.shape[1:])
    whole = any("int" in i.kind for i in inputs)
    yield from itertools.product(_SIZES if free else _SIZES[:1], _HIGHEST if whole else _HIGHEST[:1])


def _shapes(inputs: Sequence[Input], size: int) -> dict[str, tuple[int, ...]]:
    """Fix dynamic dimensions: 1 for the batch, equal sizes for equal symbols."""
    symbols: dict[str, int] = {}
    for value in inputs:
        first = value.shape[0] if value.shape else None
        if isinstance(first, str):
            symbols.setdefault(first, 1)
    return {i.name: tuple(_fix(i, n, symbols, size) for n in range(len(i.shape))) for i in inputs}


def _fix(value: Input, position: int, symbols: dict[str, int], size: int) -> int:
    dimension = value.shape[position]
    if isinstance(dimension, int) and dimension >= 0:
        return dimension
    chosen = 1 if position == 0 else size or _guess(len(value.shape), position)
    return symbols.setdefault(dimension, chosen) if isinstance(dimension, str) else chosen


def _guess(rank: int, position: int) -> int:
    """Guess by the rank: images are batch, channels, height, width; the rest are sequences."""
    if rank == _IMAGE_RANK:
        return 3 if position == 1 else 224
    return 16


def _bytes(inputs: Sequence[Input], size: int) -> int:
    return sum(math.prod(s) * 8 for s in _shapes(inputs, size).values())


def more_like(session: onnxruntime.InferenceSession, found: Reference, *, count: int) -> list[Arrays]:
    """Return so many inputs of the kind that the model was found to accept, the found ones first."""
    return list(_made(inputs_of(session), size=found.size, highest=found.highest, count=count))


def _made(inputs: Sequence[Input], *, size: int, highest: int, count: int) -> Iterator[Arrays]:
    shapes = _shapes(inputs, size)
    for number in range(count):
        yield {i.name: generate(i, shapes[i.name], sample=number, highest=highest) for i in inputs}


def run(
    session: onnxruntime.InferenceSession, given: Iterable[Arrays], *, like: Kinds | None = None
) -> Iterator[Sample]:
    """Yield inputs with the model's answers, until that has taken enough time or memory.

    `like` tells the kinds of another model's inputs and outputs, in which `given` is and the
    answers are yielded: FP16 where this one has FP32.
    """
    own = kinds_of(session)
    began, kept = time.monotonic(), 0
    for inputs in given:
        found = session.run(list(own.outputs), dict(as_kinds(inputs, own.inputs)))
        outputs: Arrays = dict(zip(own.outputs, map(np.asarray, found), strict=True))
        if like is not None:
            outputs = as_kinds(outputs, like.outputs)
        yield Sample(inputs, outputs)
        kept += sum(a.nbytes for a in (*inputs.values(), *outputs.values()))
        if kept > _MOST_BYTES or time.monotonic() - began > _ENOUGH_SECONDS:
            return


def kinds_of(session: onnxruntime.InferenceSession) -> Kinds:
    """Return the types of a model's inputs and outputs."""
    return Kinds(
        inputs={value.name: value.type for value in session.get_inputs()},
        outputs={value.name: value.type for value in session.get_outputs()},
    )


def as_kinds(arrays: Arrays, kinds: Mapping[str, str]) -> Arrays:
    """Return arrays with floating-point numbers of the widths that these types have."""
    with np.errstate(over="ignore"):  # infinity then, as the model itself would answer
        return {name: _as_kind(array, kinds[name]) for name, array in arrays.items()}


def _as_kind(array: Any, kind: str) -> Any:
    dtype = np.dtype(DTYPES[kind])
    return array.astype(dtype, copy=False) if array.dtype.kind == dtype.kind == "f" else array


def generate(value: Input, shape: tuple[int, ...], *, sample: int, highest: int) -> np.ndarray[Any, Any]:
    """Return one input's values, fixed by its name and the sample's number."""
    seed = hashlib.sha256(f"{value.name}/{sample}".encode()).digest()[:8]
    random = np.random.Generator(np.random.PCG64(int.from_bytes(seed, "big")))
    dtype = np.dtype(DTYPES[value.kind])
    if dtype.kind == "f":
        return random.random(shape).astype(dtype)
    if dtype.kind == "b":
        return random.integers(0, 2, shape).astype(dtype)
    numbers = random.integers(0, highest, shape)
    if dtype.kind == "O":  # digits are both words and numbers to a model that parses text
        return np.asarray(
            np.vectorize(str, otypes=[object])(numbers) if numbers.size else numbers, dtype=dtype
        )
    return numbers.astype(dtype)


def _notes(samples: Sequence[Sample]) -> tuple[str, ...]:
    bad = not_numbers(samples)
    return (f"generated inputs give NaN or infinity in {', '.join(bad)}",) if bad else ()


def not_numbers(samples: Iterable[Sample]) -> list[str]:
    """Return the outputs that hold NaN or infinity, where a check has nothing to compare."""
    return sorted(
        {
            name
            for sample in samples
            for name, array in sample.outputs.items()
            if array.dtype.kind == "f" and not np.isfinite(array).all()
        }
    )
