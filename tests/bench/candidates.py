"""New versions that must not be promoted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.bench import by_hand
from tests.bench.finding import Finding, judged
from tests.bench.ground import HUNGRY, LONG_SECONDS, MODEL, NOT_A_NUMBER, OLD, RANDOM, SERVER, SLOW
from tests.e2e.stage import RELEASE

from load import analysis

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.bench.ground import Ground

LOAD_SECONDS = 3
"""Longest time of a load where one is too slow."""
MUST = "0 failed; never answered an ordinary request; taken back; reason and figures in status"


def wrong_answers(ground: Ground) -> Sequence[Finding]:
    """Random numbers: never those of the reference."""
    return [_refused(ground, RANDOM, "candidate with wrong answers", {"WrongAnswers"}, figures=True)]


def not_a_number(ground: Ground) -> Sequence[Finding]:
    """NaN, where the reference has numbers."""
    return [_refused(ground, NOT_A_NUMBER, "candidate with NaN", {"WrongAnswers"}, word="NaN")]


def crashing(ground: Ground) -> Sequence[Finding]:
    """It needs more memory than Triton's container may have, and what loads it is killed."""
    reasons = {"LoadCrashed", "LoadFailed"}
    return [_refused(ground, HUNGRY, "candidate that crashes on load", reasons)]


def slow(ground: Ground) -> Sequence[Finding]:
    """It takes longer to load than the server allows."""
    ground.return_to(OLD)
    body = {"spec": {"loads": {"timeoutSeconds": LOAD_SECONDS}}}
    ground.stage.kube.patch("TritonServer", SERVER, body)
    ground.stage.wait_ready("TritonServer", SERVER)
    return [_refused(ground, SLOW, "candidate too slow to load", {"LoadTimeout"}, at_start=False)]


def _refused(
    ground: Ground,
    number: int,
    what: str,
    reasons: set[str],
    *,
    figures: bool = False,
    word: str = "",
    at_start: bool = True,
) -> Finding:
    if at_start:
        ground.return_to(OLD)

    def failed() -> None:
        found = ground.version(number)
        assert found.get("state") == "Failed", found

    def apply() -> None:
        ground.stage.apply(ground.model(OLD, number))
        ground.stage.eventually(failed, within=LONG_SECONDS)
        ground.stage.eventually(lambda: _taken_back(ground, number))

    change = ground.under_load(apply)
    told = ground.version(number)
    check = (told.get("checks") or [{}])[0]
    message = str(check.get("message") or told.get("message") or "")
    problems = []
    if answered := analysis.answered_by(change.records, number):
        problems.append(f"it answered {len(answered)} requests")
    if check.get("reason") not in reasons:
        problems.append(f"the check's reason is {check.get('reason')}, not {' or '.join(sorted(reasons))}")
    if not message or word not in message or (figures and "cosine" not in check):
        problems.append(f"the status does not tell enough: {told}")
    said = f"{check.get('reason')}: {message[:300]}"
    return judged(
        what, MUST, change, more=["it answered none" if not answered else "", said], problems=problems
    )


def _taken_back(ground: Ground, number: int) -> None:
    """Fail while the tree or a pod holds it."""
    tree = ground.stage.on_volume(below=f"servers/{SERVER}/{RELEASE}")
    assert f"{MODEL}/{number}" not in tree, tree
    assert not any(path.startswith(f"{MODEL}.candidate") for path in tree), tree
    with by_hand.connected(ground.stage) as pods:
        rest = [row for row in pods.held() if row[1] != MODEL or int(row[2]) == number]
    assert rest == []
