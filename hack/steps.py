"""Run make targets one after the other and end with a table: `python hack/steps.py lint types …`.

All of them run, also after one has failed: one look tells everything that is wrong. The exit
status is 1 if any failed.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Result:
    """How a step ended."""

    name: str
    status: int
    seconds: float


def main(names: Sequence[str]) -> int:
    """Run the steps and return the exit status."""
    results = [run(name) for name in names]
    print(table(results), flush=True)
    return 1 if any(result.status for result in results) else 0


def run(name: str) -> Result:
    """Run one make target with its output on the terminal."""
    print(f"\n──── {name} {'─' * (74 - len(name))}", flush=True)
    began = time.monotonic()
    command = [os.environ.get("MAKE", "make"), "--no-print-directory", name]
    status = subprocess.run(command, check=False).returncode
    return Result(name, status, time.monotonic() - began)


def table(results: Sequence[Result]) -> str:
    """Return a line for each step, and the sum."""
    failed = [result.name for result in results if result.status]
    rule = "─" * 36
    lines = ["", f"{'step':<16}{'seconds':>9}  result", rule]
    lines += [_row(result.name, result.seconds, "failed" if result.status else "ok") for result in results]
    end = f"failed: {', '.join(failed)}" if failed else "all passed"
    return "\n".join([*lines, rule, _row("total", sum(result.seconds for result in results), end)])


def _row(name: str, seconds: float, word: str) -> str:
    return f"{name:<16}{seconds:>9.1f}  {word}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
