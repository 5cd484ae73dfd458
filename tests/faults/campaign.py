"""All runs: the one that nothing disturbs, then one for each effect of it."""

from __future__ import annotations

import dataclasses
import enum
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING

from tests.faults.run import Miss, prepared

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from tests.faults.ground import Ground
    from tests.faults.journal import Effect
    from tests.faults.run import Run
    from tests.faults.state import State

MOST_TRIES = 3
"""How often a run is repeated in which the effect did not occur, such as the last of many status writes."""


class Outcome(enum.StrEnum):
    """How a run with a kill ended."""

    SAME = "same end"
    MISS = "MISS"
    ABSENT = "not reached"


@dataclasses.dataclass(frozen=True)
class Result:
    """A run with a kill; `logs` is where its logs lie if it missed."""

    effect: Effect
    outcome: Outcome
    seconds: float
    message: str = ""
    logs: Path | None = None


@dataclasses.dataclass(frozen=True)
class Undisturbed:
    """What the run without a kill did, and what stood after each of its steps."""

    effects: Sequence[Effect]
    states: Mapping[str, State]
    requests: int
    seconds: float


def undisturbed(ground: Ground, directory: Path) -> Undisturbed:
    """Play the story without a kill.

    Raises:
        Miss: it fails by itself.
    """
    began = time.monotonic()
    with prepared(ground, directory / "undisturbed", expected={}) as run:
        run.play()
        return Undisturbed(
            effects=run.journal.effects(),
            states=run.states,
            requests=run.traffic.answered,
            seconds=time.monotonic() - began,
        )


def kill_after_each(
    ground: Ground,
    directory: Path,
    *,
    effects: Sequence[Effect],
    states: Mapping[str, State],
    at_once: int,
) -> Iterator[Result]:
    """Yield the result of a run for each effect, as they end."""
    with ThreadPoolExecutor(max_workers=at_once) as pool:
        tried = [pool.submit(_kill_after, ground, directory, effect, states) for effect in effects]
        for done in as_completed(tried):
            yield done.result()


def _kill_after(ground: Ground, directory: Path, effect: Effect, states: Mapping[str, State]) -> Result:
    began = time.monotonic()
    result = Result(effect, Outcome.ABSENT, 0.0)
    for attempt in range(1, MOST_TRIES + 1):
        place = directory / f"{effect}.{attempt}"
        with prepared(ground, place, target=effect, expected=states) as run:
            message = _play(run)
            if message:
                (place / "miss.txt").write_text(f"{message}\n\n{run.stage.explain()}\n")
                result = Result(effect, Outcome.MISS, 0.0, message, place)
            elif run.journal.killed:
                result = Result(effect, Outcome.SAME, 0.0)
        if result.outcome is not Outcome.ABSENT:
            break
    return dataclasses.replace(result, seconds=time.monotonic() - began)


def _play(run: Run) -> str:
    """Return what was not as it must be, or nothing."""
    try:
        run.play()
    except Miss as miss:
        return str(miss)
    except Exception as error:  # noqa: BLE001 - the other runs go on
        return f"the run failed: {error!r}"
    return ""
