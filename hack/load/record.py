"""What became of a request, and how that travels from the process that sends."""

from __future__ import annotations

import dataclasses
import enum
import json
from dataclasses import dataclass


class Outcome(enum.StrEnum):
    """How a request ended."""

    RIGHT = "right"
    WRONG = "wrong"
    """It was answered, by another version than was asked, or not as that version answers."""
    REFUSED = "refused"
    """Triton answered with an error."""
    CUT = "cut"
    """There was no connection, or it ended before the answer."""
    LATE = "late"
    """There was no answer in time."""


ANSWERED = frozenset({Outcome.RIGHT, Outcome.WRONG})


@dataclass(frozen=True, slots=True)
class Record:
    """One request. Times are those of `time.monotonic()`, which all processes of a Linux host share."""

    stream: str
    connection: str
    """Which connection it took: one connection leads to one pod for as long as it lives."""
    asked: int | None
    """The version that it named."""
    scheduled: float
    started: float
    ended: float
    outcome: Outcome
    answered: int | None = None
    """The version that answered."""
    error: str = ""

    @property
    def latency(self) -> float:
        """Seconds from when it was due; a late start counts."""
        return self.ended - self.scheduled

    @property
    def failed(self) -> bool:
        """Whether it got no answer."""
        return self.outcome not in ANSWERED


def to_line(record: Record) -> str:
    """Return the record as a line of JSON."""
    return json.dumps(dataclasses.astuple(record), separators=(",", ":")) + "\n"


def from_line(line: str) -> Record:
    """Read what `to_line` wrote."""
    stream, connection, asked, scheduled, started, ended, outcome, answered, error = json.loads(line)
    return Record(
        stream=stream,
        connection=connection,
        asked=asked,
        scheduled=scheduled,
        started=started,
        ended=ended,
        outcome=Outcome(outcome),
        answered=answered,
        error=error,
    )
