"""Kill operator, keeper and jobs right after each of their effects, and compare how the story ends.

`python -m tests.faults` plays the story once and counts the effects, then once for each: the process that has
done it is killed before it learns of it, starts again as it would on a cluster, and all must end as it did
without. `make faults` and `make faults-sample` call it.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.faults import report
from tests.faults.campaign import Outcome, Result, Undisturbed, kill_after_each, undisturbed
from tests.faults.ground import ground
from tests.faults.run import Miss

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.faults.journal import Effect

SAMPLE = (
    ("apply", "api.create.Job"),
    ("apply", "store.publish"),
    ("add", "triton.load"),
    ("add", "tree.link"),
    ("add", "api.status.InferenceModel"),
    ("configure", "tree.config"),
    ("roll back", "tree.remove"),
    ("delete", "sweep.engine"),
)
"""Steps and points; a sample takes the first effect of each. Every process and every step is there."""


def main(arguments: Sequence[str]) -> int:
    """Run what was asked for and return the exit status.

    It is 1 when a run ended otherwise than without its kill, or when a point was reached in none of its runs.
    """
    options = _parser().parse_args(arguments)
    directory = Path(tempfile.mkdtemp(prefix="faults-"))
    try:
        results = _run(options, directory)
    except Miss as miss:
        print(f"the run without a kill failed: {miss}\nlogs: {directory}", file=sys.stderr)
        return 1
    missed = any(result.outcome is Outcome.MISS for result in results)
    if not missed:
        shutil.rmtree(directory, ignore_errors=True)
    unknown = report.never_reached(results)
    if unknown:
        print(f"no run reached {', '.join(unknown)}: nothing is known of it", file=sys.stderr)
    return 1 if missed or unknown else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "tests.faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument(
        "--only", metavar="WHICH", help="only effects of a name, one of them (triton.load#3), or of a step"
    )
    chosen.add_argument("--sample", action="store_true", help="only a few effects, of every kind one")
    parser.add_argument("--list", action="store_true", help="list the effects and kill nothing")
    parser.add_argument(
        "--at-once", type=int, choices=(1, 2), default=2, help="runs at the same time (default: 2)"
    )
    return parser


def _run(options: argparse.Namespace, directory: Path) -> list[Result]:
    with ground(directory) as common:
        first = undisturbed(common, directory)
        _tell(first)
        effects = _chosen(options, first.effects)
        if options.list:
            print(report.listing(effects))
            return []
        results: list[Result] = []
        for result in kill_after_each(
            common, directory, effects=effects, states=first.states, at_once=options.at_once
        ):
            results.append(result)
            print(report.line(result, number=len(results), of=len(effects)), flush=True)
    print(report.table(results))
    return results


def _tell(first: Undisturbed) -> None:
    print(
        f"{len(first.effects)} effects in the run without a kill, {first.requests} requests answered, "
        f"{first.seconds:.0f} s",
        flush=True,
    )


def _chosen(options: argparse.Namespace, effects: Sequence[Effect]) -> list[Effect]:
    if options.sample:
        return sample(effects)
    chosen = [each for each in effects if options.only in (None, each.name, str(each), each.step)]
    if not chosen:
        raise SystemExit(f"no effect is called {options.only}: --list shows all")
    return chosen


def sample(effects: Sequence[Effect]) -> list[Effect]:
    """Return a few effects, always the same ones."""
    found = []
    for step, name in SAMPLE:
        named = [effect for effect in effects if (effect.step, effect.name) == (step, name)]
        if not named:
            raise SystemExit(f"no effect of step {step} is called {name}: the sample must name another")
        found.append(named[0])
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
