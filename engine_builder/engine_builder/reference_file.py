"""`reference.npz`: inputs and expected answers of an engine. Needs numpy.

It holds `sample<i>/inputs/<name>` and `sample<i>/outputs/<name>`; text is unicode, and nothing
in it is pickled.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from engine_builder import files

if TYPE_CHECKING:
    from pathlib import Path

Arrays = Mapping[str, "np.ndarray[Any, Any]"]


@dataclasses.dataclass(frozen=True)
class Sample:
    """Inputs and the answers to them."""

    inputs: Arrays
    outputs: Arrays


def save(path: Path, samples: Sequence[Sample]) -> None:
    """Write `reference.npz`."""
    arrays: dict[str, Any] = {
        f"sample{number}/{side}/{name}": array.astype(np.str_) if array.dtype.kind == "O" else array
        for number, sample in enumerate(samples)
        for side, group in (("inputs", sample.inputs), ("outputs", sample.outputs))
        for name, array in group.items()
    }
    with files.create_file(path) as fd, open(fd, "wb", closefd=False) as file:
        np.savez(file, **arrays)


def load(path: Path) -> list[Sample]:
    """Read `reference.npz`."""
    groups: dict[int, dict[str, dict[str, Any]]] = {}
    with np.load(path, allow_pickle=False) as archive:
        for key in archive.files:
            number, side, name = key.split("/", 2)
            sample = groups.setdefault(int(number.removeprefix("sample")), {"inputs": {}, "outputs": {}})
            sample[side][name] = archive[key]
    return [Sample(g["inputs"], g["outputs"]) for _, g in sorted(groups.items())]
