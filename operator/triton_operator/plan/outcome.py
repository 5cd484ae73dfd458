"""How a reconcile ends, as types; `plan.conditions` turns them into conditions.

Outcome
├── Ready      everything that the spec asks for is there
├── Waiting    on its way, or waiting for something that appears by itself
├── Stalled    a user must act
└── Suspended  a user wants it left alone
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A verdict with the reason (CamelCase, also the Event's reason) and a sentence for people."""

    reason: str
    message: str


@dataclasses.dataclass(frozen=True)
class Ready(Outcome):
    """Everything that the spec asks for is there."""


@dataclasses.dataclass(frozen=True)
class Waiting(Outcome):
    """Progress is under way or goes on by itself; look again after so many seconds.

    `after` of None means that a watch will tell.
    """

    after: float | None = None


@dataclasses.dataclass(frozen=True)
class Stalled(Outcome):
    """No progress until a user acts; `after` lets a slow retry notice that somebody did."""

    after: float | None = None


@dataclasses.dataclass(frozen=True)
class Suspended(Outcome):
    """Nothing is done until the user says so; what was Ready stays so."""


class OutcomeError(Exception):
    """Carries an outcome out of nested steps to the end of the reconcile."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(f"{outcome.reason}: {outcome.message}")
        self.outcome = outcome


def earliest(outcomes: list[Outcome]) -> float | None:
    """Return the shortest of the waiting times, or None when only watches matter."""
    waits = [o.after for o in outcomes if isinstance(o, Waiting | Stalled) and o.after is not None]
    return min(waits, default=None)


def worst(outcomes: list[Outcome]) -> Outcome | None:
    """Return the outcome that a user should read first: Stalled, then Waiting, then Ready."""
    for kind in (Stalled, Waiting, Ready):
        for outcome in outcomes:
            if isinstance(outcome, kind):
                return outcome
    return None
