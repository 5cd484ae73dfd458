"""Progress of a job: a line per step for people, seconds per step for the report."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from engine_builder.files import human

if TYPE_CHECKING:
    from collections.abc import Iterator

_EVERY_SECONDS = 5.0


class Progress:
    """Say what a job does and keep how long each step took."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.seconds: dict[str, float] = {}
        self._quiet = quiet

    def say(self, line: str) -> None:
        """Print one line for people."""
        if not self._quiet:
            print(line, flush=True)

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time one step; its line comes when it ends, whichever way."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.record(name, time.monotonic() - began)

    def record(self, name: str, seconds: float) -> None:
        """Keep and print the seconds of a step that ran elsewhere."""
        self.seconds[name] = round(self.seconds.get(name, 0.0) + seconds, 3)
        self.say(f"{name}: {seconds:.2f} s")


class Meter:
    """Print bytes and MB/s of one long copy every few seconds."""

    def __init__(self, progress: Progress, name: str, total: int) -> None:
        self._progress, self._name, self._total = progress, name, total
        self._began = self._said = time.monotonic()
        self._done = 0

    def add(self, count: int) -> None:
        """Count bytes; prints when the last line is old."""
        self._done += count
        if time.monotonic() - self._said >= _EVERY_SECONDS:
            self._said = time.monotonic()
            self._say()

    def finish(self) -> None:
        """Print the closing line."""
        self._say()

    def _say(self) -> None:
        rate = self._done / 1e6 / max(time.monotonic() - self._began, 1e-6)
        self._progress.say(f"{self._name}: {human(self._done)} of {human(self._total)} read, {rate:.0f} MB/s")
