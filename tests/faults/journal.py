"""The effects that processes noted, and the order to one of them to die (`engine_builder.faults`)."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
from collections import Counter
from typing import TYPE_CHECKING

from engine_builder.faults import VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OPERATOR = "run"
"""The operator's role: its command."""


@dataclasses.dataclass(frozen=True)
class Line:
    """An effect that a process noted right after it."""

    role: str
    pid: int
    name: str
    about: str


@dataclasses.dataclass(frozen=True)
class Effect:
    """An effect of the run that nothing disturbed: the `number`th of its name, the `nth` in its step.

    A run that is disturbed may have a write of a status more or less than another. So an effect is found
    again by its place in its step.
    """

    step: str
    name: str
    number: int
    nth: int
    line: Line

    def __str__(self) -> str:
        return f"{self.name}#{self.number}"


class Journal:
    """What happened in one run, step by step; kills at most once."""

    def __init__(self, directory: Path, *, target: Effect | None = None) -> None:
        directory.mkdir()
        self.target = target
        self.directory = directory
        self._log, self._order = directory / "log", directory / "kill"
        self._ordered = False
        self._steps: dict[str, int] = {}

    @property
    def variables(self) -> dict[str, str]:
        """Return what tells a process to take part."""
        return {VARIABLE: str(self.directory)}

    @property
    def killed(self) -> bool:
        """Tell whether the target was reached, and its process killed."""
        return self._ordered and not self._order.exists()

    @property
    def size(self) -> int:
        """Return a number that grows with every effect."""
        return self._log.stat().st_size if self._log.exists() else 0

    def begin(self, step: str) -> None:
        """Say that a step begins; its is what happens from now on."""
        with self._locked():
            lines = self.lines()
            self._steps[step] = len(lines)
            if self.target is not None and self.target.step == step:
                before = sum(line.name == self.target.name for line in lines)
                self._order.write_text(f"{self.target.name}#{before + self.target.nth}")
                self._ordered = True

    def lines(self) -> list[Line]:
        """Return what was noted so far."""
        if not self._log.exists():
            return []
        return [_line(text) for text in self._log.read_text().splitlines()]

    def effects(self) -> list[Effect]:
        """Return what was noted so far, by step and occurrence."""
        steps = sorted(self._steps.items(), key=lambda item: item[1])
        numbers: Counter[str] = Counter()
        places: Counter[tuple[str, str]] = Counter()
        found = []
        for index, line in enumerate(self.lines()):
            step = next(name for name, begun in reversed(steps) if begun <= index)
            numbers[line.name] += 1
            places[step, line.name] += 1
            number, nth = numbers[line.name], places[step, line.name]
            found.append(Effect(step=step, name=line.name, number=number, nth=nth, line=line))
        return found

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with self._log.open("a") as log:
            fcntl.flock(log, fcntl.LOCK_EX)
            yield


def _line(text: str) -> Line:
    _, role, pid, name, about = text.split(" ", 4)
    return Line(role=role, pid=int(pid), name=name, about=about)
