"""Measurements on real pods.

`make bench-switch`: what clients notice when versions, settings and pods change.
`make bench-build`: what a build costs beyond the compiler.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Run by path: `tests` lies in the root, and `demo`, `load` and `localcluster` in hack/.
sys.path[:1] = [str(ROOT), str(ROOT / "hack")]

from tests.bench import bench, building  # noqa: E402
from tests.bench.ground import AGAIN, Options  # noqa: E402
from tests.bench.rows import ROWS  # noqa: E402


def main() -> int:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(prog="tests/bench", description=__doc__)
    parser.add_argument("what", choices=("switch", "build"), help="measurement")
    parser.add_argument("--rate", type=float, default=200, help="requests a second (default: %(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=60, help="of load for each row (default: %(default)s)"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=5,
        choices=range(1, len(AGAIN) + 1),
        metavar="N",
        help="of the comparison, or builds (default: 5)",
    )
    parser.add_argument("--only", nargs="*", choices=list(ROWS), default=[], help="run only these rows")
    given = parser.parse_args()
    if given.what == "build":
        return building.main(given.rounds)
    return bench.main(
        Options(rate=given.rate, seconds=given.seconds, rounds=given.rounds, rows=tuple(given.only or ROWS))
    )


if __name__ == "__main__":
    sys.exit(main())
