from __future__ import annotations

import datetime
import itertools

from tests.observed import NOW

from triton_operator.plan import history
from triton_operator.resources.inference_model import CheckStatus, HistoryEntry
from triton_operator.resources.version import VersionState, VersionStatus

LATER = NOW + datetime.timedelta(seconds=5, microseconds=7)


def an_entry(number: int, state: VersionState, **more: object) -> VersionStatus:
    return VersionStatus.model_validate({"number": number, "state": state, **more})


def told(before: list[VersionStatus], after: list[VersionStatus]) -> list[tuple[int | None, str]]:
    return [(e.version, e.reason) for e in history.extended((), before=before, after=after, now=LATER)]


def test_every_turn_of_a_version_is_told_once() -> None:
    building = an_entry(2, VersionState.BUILDING, message="engine x is being built")
    trying = an_entry(2, VersionState.CANDIDATE, message="being loaded")
    promoted = an_entry(2, VersionState.PROMOTED, pods="0/2")
    served = promoted.model_copy(update={"pods": "2/2", "served_since": NOW})
    states = [[], [building], [building], [trying], [promoted], [served], [served]]
    story = [turn for before, after in itertools.pairwise(states) for turn in told(before, after)]
    assert story == [(2, "Building"), (2, "Candidate"), (2, "Promoted"), (2, "Served")]


def test_a_failure_is_told_with_its_reason_and_figures() -> None:
    failed = an_entry(2, VersionState.FAILED, reason="WrongAnswers", message="lowest cosine 0.2")
    (entry,) = history.extended((), before=[an_entry(2, VersionState.CANDIDATE)], after=[failed], now=LATER)
    assert (entry.reason, entry.message) == ("WrongAnswers", "version 2: lowest cosine 0.2")
    other = failed.model_copy(update={"reason": "LoadFailed"})
    assert told([failed], [other]) == [(2, "LoadFailed")]


def test_a_promotion_says_what_the_check_found() -> None:
    check = CheckStatus(
        engine="e", minimum_cosine="0.99", reason="Succeeded", message="lowest cosine 0.999998"
    )
    promoted = an_entry(2, VersionState.PROMOTED, checks=(check,))
    (entry,) = history.extended((), before=[an_entry(2, VersionState.CANDIDATE)], after=[promoted], now=LATER)
    assert "lowest cosine 0.999998" in entry.message


def test_removal_and_return_are_told() -> None:
    promoted = an_entry(1, VersionState.PROMOTED, served_since=NOW)
    removed = an_entry(1, VersionState.REMOVED, message="no longer listed")
    assert told([promoted], [removed]) == [(1, "Removed")]
    assert told([removed], [promoted]) == [(1, "Promoted"), (1, "Served")]
    assert told([removed], []) == [(1, "Forgotten")]


def test_the_latest_entries_are_kept() -> None:
    old = tuple(
        HistoryEntry(time=NOW, version=n + 1, reason="Removed", message="")
        for n in range(history.MOST_ENTRIES)
    )
    new = an_entry(99, VersionState.CANDIDATE, message="m")
    story = history.extended(old, before=[], after=[new], now=LATER)
    assert len(story) == history.MOST_ENTRIES
    assert story[-1].version == 99
    assert history.news(old, story) == (story[-1],)
    assert story[-1].time.microsecond == 0
