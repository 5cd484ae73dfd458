"""How far a build is: TensorRT's nested phases as a percentage, told in the log and in a file."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import time
from typing import TYPE_CHECKING

from engine_builder import files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import FrameType

    from engine_builder.progress import Progress

FILE = "progress"
"""In the attempt's staging directory: the percentage as text. It never reaches the store."""

_LOG_EVERY_SECONDS = 5.0
_UNFINISHED = 99
_WHOLE = 100


@dataclasses.dataclass
class _Phase:
    steps: int
    done: int = 0
    inner: dict[str, _Phase] = dataclasses.field(default_factory=dict)

    @property
    def share(self) -> float:
        """Return what is done of it, 0 to 1: whole steps, and the furthest phase within the next."""
        inner = max((phase.share for phase in self.inner.values()), default=0.0)
        return min(1.0, (self.done + inner) / self.steps) if self.steps else inner


class Percent:
    """Share of a build that is done, 0 to 99; it never falls."""

    def __init__(self) -> None:
        self._phases: dict[str, _Phase] = {}
        self._roots: dict[str, _Phase] = {}
        self.value = 0

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """Note a phase that begins, within `parent` where that is known."""
        phase = self._phases[name] = _Phase(max(0, steps))
        if parent in self._phases:
            self._phases[parent].inner[name] = phase
        else:
            self._roots[name] = phase

    def step(self, name: str, step: int) -> None:
        """Note that a phase has done its step `step`, counted from 0."""
        if name in self._phases:
            phase = self._phases[name]
            phase.done, phase.inner = max(phase.done, step + 1), {}
            self._look()

    def finish(self, name: str) -> None:
        """Note a phase that has ended; its parent may count on."""
        phase = self._phases.pop(name, None)
        if phase is not None:
            phase.done, phase.steps, phase.inner = 1, 1, {}
            self._look()

    def _look(self) -> None:
        shares = [phase.share for phase in self._roots.values()]
        self.value = max(self.value, min(_UNFINISHED, int(100 * sum(shares) / len(shares)) if shares else 0))


class Teller:
    """Tell a percentage where people and the operator look for it."""

    def __init__(self, progress: Progress, place: Path) -> None:
        self._progress, self._file, self._new = progress, place / FILE, place / f"{FILE}.new"
        self._told = self._said = -1
        self._said_at = 0.0

    def tell(self, percent: int) -> None:
        """Write the file when the percentage differs, and a line for people every few seconds."""
        if percent != self._told:
            self._told = percent
            with contextlib.suppress(OSError):  # a full volume is noticed by what matters
                self._new.write_text(f"{percent}\n", encoding="ascii")
                self._new.rename(self._file)  # whoever reads it finds a number
        if percent != self._said and time.monotonic() - self._said_at >= _LOG_EVERY_SECONDS:
            self._said, self._said_at = percent, time.monotonic()
            self._progress.say(f"progress {percent} %")

    def finish(self) -> None:
        """Remove the file: what lies in the directory now becomes an engine."""
        self._file.unlink(missing_ok=True)
        self._new.unlink(missing_ok=True)


def read(place: Path) -> int | None:
    """Return the percentage that an attempt has told in its staging directory, or None."""
    told = b""
    with contextlib.suppress(OSError):  # such as a stale handle: the directory goes when the attempt ends
        told = (files.read_file(place / FILE) or b"").strip()
    return min(_WHOLE, int(told)) if told.isdigit() and len(told) <= len(str(_WHOLE)) else None


class Stop:
    """Whether this process was told to stop.

    TensorRT swallows exceptions that a signal handler raises; so the handler only takes a note, which
    the progress monitor reads.
    """

    def __init__(self) -> None:
        self.requested = False

    @contextlib.contextmanager
    def listen(self) -> Iterator[None]:
        """Take a note of SIGTERM meanwhile."""
        before = signal.signal(signal.SIGTERM, self._note)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.requested = True
