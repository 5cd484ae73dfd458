"""The operator's switch against the same load made by hand."""

from __future__ import annotations

import dataclasses
import statistics
import time
from functools import partial
from typing import TYPE_CHECKING

from tests.bench import by_hand
from tests.bench.finding import Finding
from tests.bench.ground import AGAIN, MODEL, NEW, OLD

from load import analysis

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.bench.by_hand import Pods
    from tests.bench.ground import Ground

TWIN = "twin"
"""The same model once more, which the operator leaves alone: loads by hand are done on it."""
MOST_TIMES, MOST_SECONDS_MORE = 1.2, 1.0
WINDOW_SECONDS = 6.0
"""From the beginning of a switch."""
POLL_SECONDS = 0.1
QUIET_SECONDS = 3.0
"""After a round, until all is unloaded and idle."""


@dataclasses.dataclass(frozen=True)
class Round:
    """One switch under load."""

    seconds: float
    p99: float
    p99_before: float
    requests: int
    missed: int
    """Requests that failed or were answered wrongly."""


def compared(ground: Ground) -> Sequence[Finding]:
    """Add version 2 by the operator and by hand, in turns."""
    ground.return_to(OLD, NEW)  # so that its engine lies in the store
    ground.serve(OLD, NEW, name=TWIN)
    ground.serve(OLD)
    ground.stage.apply(ground.model(OLD, NEW, name=TWIN, suspend=True))
    config = by_hand.config_in_tree(ground.stage, TWIN)
    operator, hand = [], []
    with by_hand.connected(ground.stage) as pods:
        _settle(lambda: pods.load(TWIN, config, {OLD}))
        for number in AGAIN[: ground.options.rounds]:
            operator.append(_round(ground, MODEL, partial(_by_operator, ground, pods, number)))
            _settle(lambda: ground.serve(OLD))
            hand.append(_round(ground, TWIN, lambda: pods.load(TWIN, config, {OLD, NEW})))
            _settle(lambda: pods.load(TWIN, config, {OLD}))
    ground.stage.discard(TWIN)
    return [_latencies(operator, hand), _durations(operator, hand)]


def _by_operator(ground: Ground, pods: Pods, number: int) -> None:
    ground.stage.apply(ground.model(OLD, number))
    while not all(pods.have(MODEL, number)):
        time.sleep(POLL_SECONDS)


def _round(ground: Ground, model: str, switch: Callable[[], None]) -> Round:
    with ground.load(ground.service_streams(), name=model) as run:
        time.sleep(QUIET_SECONDS)
        began = time.monotonic()
        switch()
        seconds = time.monotonic() - began
        time.sleep(max(0.0, WINDOW_SECONDS - seconds) + 0.5)  # and what is under way
        records = run.stop()
    window = analysis.scheduled_within(records, begin=began, end=began + WINDOW_SECONDS)
    return Round(
        seconds=seconds,
        p99=analysis.percentile(window, 0.99),
        p99_before=analysis.percentile(analysis.scheduled_within(records, begin=0, end=began), 0.99),
        requests=len(window),
        missed=len(analysis.failures(records)) + len(analysis.wrong_answers(records)),
    )


def _settle(act: Callable[[], None]) -> None:
    act()
    time.sleep(QUIET_SECONDS)


def _latencies(operator: Sequence[Round], hand: Sequence[Round]) -> Finding:
    ours, theirs = (statistics.median(found.p99 for found in rounds) for rounds in (operator, hand))
    problems = _missed(operator, hand)
    if ours > MOST_TIMES * theirs:
        problems.append(f"{ours / theirs:.2f} times is above {MOST_TIMES}")
    before = statistics.median(found.p99_before for found in (*operator, *hand))
    rounds = " and ".join(_listed(found) for found in (operator, hand))
    return Finding(
        "p99 in the window of a switch against the same load call made by hand with tritonclient, "
        f"median of {len(operator)}",
        f"≤ {MOST_TIMES} times",
        f"{ours * 1000:.1f} ms against {theirs * 1000:.1f} ms: {ours / theirs:.2f} times; "
        f"rounds: {rounds} ms; {operator[0].requests:,} requests in each window; "
        f"{before * 1000:.1f} ms before the switches",
        tuple(problems),
    )


def _durations(operator: Sequence[Round], hand: Sequence[Round]) -> Finding:
    ours, theirs = (statistics.median(found.seconds for found in rounds) for rounds in (operator, hand))
    more = ours - theirs
    problems = [f"{more:.2f} s is above {MOST_SECONDS_MORE:.0f} s"] if more > MOST_SECONDS_MORE else []
    return Finding(
        "apply of a version with a cached engine → promoted on both pods, against a load by hand on both "
        f"pods, median of {len(operator)}",
        f"≤ {MOST_SECONDS_MORE:.0f} s more",
        f"{ours:.2f} s against {theirs:.2f} s: {more:.2f} s more; rounds: "
        f"{' and '.join(', '.join(f'{f.seconds:.2f}' for f in rounds) for rounds in (operator, hand))} s",
        tuple(problems),
    )


def _listed(rounds: Sequence[Round]) -> str:
    return ", ".join(f"{found.p99 * 1000:.1f}" for found in rounds)


def _missed(*kinds: Sequence[Round]) -> list[str]:
    missed = sum(found.missed for rounds in kinds for found in rounds)
    return [f"{missed} requests failed or were answered wrongly"] if missed else []
