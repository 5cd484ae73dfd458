"""Two answers to the same question: cosine and largest error of each output.

Needs numpy, imported when something is compared: the keeper starts without it.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from engine_builder.errors import EngineBuilderError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np

    Array = np.ndarray[Any, Any]

_ZERO = 1e-6
"""Largest error by which an answer still counts as zero."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Figures of one output, or of the worst of several."""

    cosine: float = 1.0
    max_error: float = 0.0

    def worse(self, other: Comparison) -> Comparison:
        """Return the lowest cosine and the largest error of both."""
        return Comparison(min(self.cosine, other.cosine), max(self.max_error, other.max_error))


class WrongAnswerError(EngineBuilderError):
    """An answer that no figure can describe."""


class Tally:
    """Answers to several samples, compared output by output."""

    def __init__(self) -> None:
        self._figures: dict[str, Comparison] = {}
        self._pairs: dict[str, list[tuple[Array, Array]]] = {}
        """Of outputs that are a single number."""

    def add(self, name: str, expected: Array, found: Array | None) -> None:
        """Compare one output of one sample.

        Raises:
            WrongAnswerError: as `compare` does.
        """
        comparison = compare(name, expected, found)
        self._figures[name] = self._figures.get(name, Comparison()).worse(comparison)
        if found is not None and expected.size == 1 and expected.dtype.kind != "U":
            self._pairs.setdefault(name, []).append((expected, found))

    def figures(self) -> dict[str, Comparison]:
        """Return the worst comparison by output: single numbers differ only when seen together."""
        import numpy as np

        figures = dict(self._figures)
        for name, pairs in self._pairs.items():
            expected, found = (np.concatenate([np.ravel(pair[side]) for pair in pairs]) for side in (0, 1))
            figures[name] = figures[name].worse(compare(name, expected, found))
        return figures


def worst_of(comparisons: Iterable[Comparison]) -> Comparison:
    """Return the lowest cosine and the largest error of all."""
    found = Comparison()
    for each in comparisons:
        found = found.worse(each)
    return found


def compare(name: str, expected: Array, found: Array | None) -> Comparison:
    """Compare one output.

    Where the source itself gives NaN or infinity, nothing is expected of the answer.

    Raises:
        WrongAnswerError: it is missing, of another type or shape, text that differs, or not finite.
    """
    import numpy as np

    if found is None:
        raise WrongAnswerError(f"output {name!r} is missing in the answer")
    kinds = [_kind(expected), _kind(found)]
    if kinds[0] != kinds[1]:
        raise WrongAnswerError(f"output {name!r} is {kinds[1]}, expected {kinds[0]}")
    if expected.shape != found.shape:
        raise WrongAnswerError(
            f"output {name!r} has shape {list(found.shape)}, expected {list(expected.shape)}"
        )
    if expected.dtype.kind == "U":
        if not np.array_equal(expected, found):
            raise WrongAnswerError(
                f"output {name!r}: {int((expected != found).sum())} of {expected.size} strings differ"
            )
        return Comparison()
    finite = np.isfinite(expected)
    left, right = (a[finite].astype(np.float64) for a in (expected, found))
    if not np.isfinite(right).all():
        raise WrongAnswerError(f"output {name!r} holds NaN or infinity where the source's answer has none")
    return _figures(left, right)


def _kind(array: Array) -> str:
    return "BYTES" if array.dtype.kind == "U" else array.dtype.name


def _figures(left: Array, right: Array) -> Comparison:
    import numpy as np

    if not left.size:
        return Comparison()
    error = float(np.abs(left - right).max())
    largest = [float(np.abs(side).max()) for side in (left, right)]
    if not all(largest):
        return Comparison(1.0 if error <= _ZERO else 0.0, error)
    left, right = left / largest[0], right / largest[1]  # squares stay within float64
    cosine = float(left @ right / (np.linalg.norm(left) * np.linalg.norm(right)))
    return Comparison(max(-1.0, min(1.0, cosine)), error)
