"""What people see: a line for each run, a table by point at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.faults.campaign import Outcome
from tests.faults.journal import OPERATOR

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.faults.campaign import Result
    from tests.faults.journal import Effect

RULE = "─" * 78
MOST_LINES = 40


def role_of(effect: Effect) -> str:
    """Return who did it."""
    return "operator" if effect.line.role == OPERATOR else effect.line.role


def listing(effects: Sequence[Effect]) -> str:
    """Return a line for each effect."""
    return "\n".join(
        f"{effect!s:34}{role_of(effect):10}{effect.step:11}{effect.line.about}" for effect in effects
    )


def line(result: Result, *, number: int, of: int) -> str:
    """Return the line of a run that has ended."""
    effect = result.effect
    head = f"[{number:3}/{of}] {effect!s:34}{role_of(effect):10}{effect.step:11}"
    return f"{head}{result.outcome.value:12}{result.seconds:6.1f} s{_told(result)}"


def _told(result: Result) -> str:
    """Return what went wrong and where to look, and nothing when nothing did."""
    if result.outcome is not Outcome.MISS:
        return ""
    lines = result.message.splitlines()
    shown = "\n".join(f"    {line}" for line in lines[:MOST_LINES])
    rest = f"\n    … {len(lines) - MOST_LINES} lines more" if len(lines) > MOST_LINES else ""
    return (
        f"\n{shown}{rest}\n    all of it: {result.logs}/miss.txt; again: make faults ONLY='{result.effect}'"
    )


def table(results: Sequence[Result]) -> str:
    """Return a line for each point: how many effects, how many ended the same, the longest run."""
    names = sorted({result.effect.name for result in results})
    rows = [_row(name, [result for result in results if result.effect.name == name]) for name in names]
    head = f"{'killed right after':34}{'effects':>8}{'same end':>10}{'missed':>8}{'not reached':>13}"
    return "\n".join(["", head, RULE, *rows, RULE, _row("all", results)])


def never_reached(results: Sequence[Result]) -> list[str]:
    """Return the points at which no process was killed: nothing is known of them."""
    reached = {result.effect.name for result in results if result.outcome is not Outcome.ABSENT}
    return sorted({result.effect.name for result in results} - reached)


def _row(name: str, results: Sequence[Result]) -> str:
    same, missed, absent = (
        sum(result.outcome is outcome for result in results)
        for outcome in (Outcome.SAME, Outcome.MISS, Outcome.ABSENT)
    )
    return f"{name:34}{len(results):8}{same:10}{missed:8}{absent:13}"
