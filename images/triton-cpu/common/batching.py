"""Put requests of one shape into one run of the model, and take the answers apart again.

Pure: numpy arrays in, numpy arrays out. `Run` is the session's own call.
"""  # noqa: INP001

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

Arrays = Mapping[str, "np.ndarray[Any, Any]"]
Run = Callable[[Sequence[str], Arrays], "list[np.ndarray[Any, Any]]"]


@dataclasses.dataclass(frozen=True)
class Question:
    """One request: its place among the requests, the outputs it wants, and its inputs."""

    index: int
    outputs: tuple[str, ...]
    inputs: Arrays

    @property
    def batch(self) -> int:
        """The rows that this request brings."""
        return int(next(iter(self.inputs.values())).shape[0])

    def key(self) -> tuple[object, ...]:
        """Tell which requests can share a run: all but the number of rows must be equal."""
        return (
            self.outputs,
            *((name, array.dtype.str, array.shape[1:]) for name, array in sorted(self.inputs.items())),
        )


Answers = dict[int, "list[np.ndarray[Any, Any]] | Exception"]
"""What each request gets, by its index: the outputs it asked for, in its order, or why not."""


def answer(questions: Sequence[Question], *, run: Run, batched: bool) -> Answers:
    """Answer every question; one that fails takes no other with it."""
    answers: Answers = {}
    for group in _groups(questions) if batched else [[question] for question in questions]:
        answers.update(_answer_group(group, run=run))
    return answers


def _groups(questions: Iterable[Question]) -> Iterable[list[Question]]:
    groups: dict[tuple[object, ...], list[Question]] = {}
    for question in questions:
        groups.setdefault(question.key(), []).append(question)
    return groups.values()


def _answer_group(group: Sequence[Question], *, run: Run) -> Answers:
    first = group[0]
    if len(group) == 1:
        return {first.index: _answer_one(first, run=run)}
    inputs = {name: np.concatenate([question.inputs[name] for question in group]) for name in first.inputs}
    try:
        outputs = run(first.outputs, inputs)
    except Exception:  # noqa: BLE001 - which of them it was shows when each runs by itself
        outputs = []
    total = sum(question.batch for question in group)
    if not outputs or any(output.ndim == 0 or output.shape[0] != total for output in outputs):
        return {question.index: _answer_one(question, run=run) for question in group}
    return _split(group, outputs)


def _answer_one(question: Question, *, run: Run) -> list[np.ndarray[Any, Any]] | Exception:
    try:
        return run(question.outputs, question.inputs)
    except Exception as error:  # noqa: BLE001 - becomes the answer of this one request
        return error


def _split(group: Sequence[Question], outputs: Sequence[np.ndarray[Any, Any]]) -> Answers:
    ends = np.cumsum([question.batch for question in group])
    parts = [np.split(output, ends[:-1]) for output in outputs]
    return {question.index: [part[place] for part in parts] for place, question in enumerate(group)}
