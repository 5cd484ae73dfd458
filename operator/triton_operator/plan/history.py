"""The story of a model: one entry for every turn that a version takes."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from triton_operator.plan.conditions import shorten
from triton_operator.resources.inference_model import HistoryEntry
from triton_operator.resources.version import VersionState, VersionStatus

MOST_ENTRIES = 64
MESSAGE_LENGTH = 512

_SILENT = frozenset({VersionState.RESOLVING, VersionState.BUILT})
"""States on the way to one that says more."""


def extended(
    history: Sequence[HistoryEntry],
    *,
    before: Sequence[VersionStatus],
    after: Sequence[VersionStatus],
    now: datetime.datetime,
) -> tuple[HistoryEntry, ...]:
    """Return the story with what happened between two looks at a model's versions, the newest last."""
    known = {entry.number: entry for entry in before}
    time = now.replace(microsecond=0)
    news = [
        HistoryEntry(time=time, version=entry.number, reason=reason, message=shorten(message, MESSAGE_LENGTH))
        for entry in after
        for reason, message in _turns(known.get(entry.number), entry)
    ]
    gone = known.keys() - {entry.number for entry in after}
    news += [
        HistoryEntry(
            time=time, version=number, reason="Forgotten", message="no engine of it is kept any more"
        )
        for number in sorted(gone)
    ]
    return (*history, *news)[-MOST_ENTRIES:]


def news(before: Sequence[HistoryEntry], after: Sequence[HistoryEntry]) -> tuple[HistoryEntry, ...]:
    """Return the entries that a story has and its former state had not."""
    known = set(before)
    return tuple(entry for entry in after if entry not in known)


def _turns(before: VersionStatus | None, after: VersionStatus) -> list[tuple[str, str]]:
    """Return the turns of one version as (reason, message)."""
    turns = []
    if _step(before) != _step(after) and after.state not in _SILENT:
        turns.append((_reason(after), _message(after)))
    if after.served_since is not None and (before is None or before.served_since is None):
        turns.append(("Served", f"version {after.number}: served by {after.pods or 'all'} pods"))
    return turns


def _step(entry: VersionStatus | None) -> object:
    if entry is None:
        return None
    return entry.state, entry.reason if entry.state is VersionState.FAILED else None


def _reason(entry: VersionStatus) -> str:
    if entry.state is VersionState.FAILED and entry.reason:
        return entry.reason
    return entry.state.value


def _message(entry: VersionStatus) -> str:
    if entry.state is VersionState.PROMOTED:
        return f"version {entry.number}: {_judged(entry)}put into the tree, for every pod to load"
    if entry.state is VersionState.CANDIDATE:
        return f"version {entry.number}: tried on one pod, under a name that no ordinary request uses"
    return f"version {entry.number}: {entry.message or entry.state.value}"


def _judged(entry: VersionStatus) -> str:
    told = "; ".join(dict.fromkeys(check.message for check in entry.checks if check.message))
    return f"answers right ({told}); " if told else ""
