"""The one summariser: outcome → conditions, in the form that kstatus, Flux and Argo CD read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from triton_operator.plan.outcome import Outcome, Ready, Stalled, Suspended

Condition = dict[str, Any]

MESSAGE_LENGTH = 1024
"""Most characters of a condition's message (the API allows 32,768; people read fewer)."""


def summarise(
    *, previous: Sequence[Mapping[str, Any]], outcome: Outcome, generation: int, now: str
) -> list[Condition]:
    """Return the conditions Ready, Reconciling and Stalled for this outcome.

    A condition keeps its lastTransitionTime while its status stays the same, so that two
    reconciles in a row give equal values and nothing is written. `now` is RFC 3339.
    """
    before = {c["type"]: c for c in previous}
    ready_before = str(before.get("Ready", {}).get("status", "Unknown"))
    verdicts = {
        "Ready": _ready_status(outcome, ready_before=ready_before),
        "Reconciling": _status(not isinstance(outcome, Ready | Stalled | Suspended)),
        "Stalled": _status(isinstance(outcome, Stalled)),
    }
    return [
        _condition(
            before.get(kind, {}), kind=kind, status=status, outcome=outcome, generation=generation, now=now
        )
        for kind, status in verdicts.items()
    ]


def _ready_status(outcome: Outcome, *, ready_before: str) -> str:
    """Ready is Unknown from the first look until there is a first verdict."""
    if isinstance(outcome, Ready):
        return "True"
    if isinstance(outcome, Suspended):
        return ready_before
    if isinstance(outcome, Stalled):
        return "False"
    return "Unknown" if ready_before == "Unknown" else "False"


def _status(value: bool) -> str:  # noqa: FBT001 - a truth value is all that this turns into text
    return "True" if value else "False"


def _condition(
    before: Mapping[str, Any], *, kind: str, status: str, outcome: Outcome, generation: int, now: str
) -> Condition:
    same = before.get("status") == status
    return {
        "type": kind,
        "status": status,
        "reason": outcome.reason,
        "message": shorten(outcome.message, MESSAGE_LENGTH),
        "lastTransitionTime": before["lastTransitionTime"] if same else now,
        "observedGeneration": generation,
    }


def shorten(text: str, length: int) -> str:
    """Cut a text to at most so many characters, and say so by an ellipsis."""
    return text if len(text) <= length else text[: length - 1] + "…"
