"""Run the rows, one after the other, and print the table."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from tests.bench.finding import WIDTH, Finding, table
from tests.bench.ground import Ground
from tests.bench.rows import ROWS
from tests.e2e.cluster import connected
from tests.e2e.installation import install
from tests.e2e.stage import remove_leftovers
from tests.integration.kube import ApiError

from load import LoadError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.bench.ground import Options

LIMIT_SECONDS = 24 * 60
"""No row begins later than that, however slow those before were."""


def main(options: Options) -> int:
    """Run the rows and return the exit status."""
    if os.environ.get("CLUSTER", "local") != "local":
        print("error: bench-switch kills containers on the nodes: it needs CLUSTER=local", file=sys.stderr)
        return 1
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    began = time.monotonic()
    with connected() as cluster:
        remove_leftovers()
        ground = Ground.prepare(cluster, install(cluster), options)
        try:
            findings = [
                finding
                for name in options.rows
                for finding in _run(console, ground, name, late=time.monotonic() > began + LIMIT_SECONDS)
            ]
        finally:
            ground.stage.leave()
    console.print(table(findings))
    console.print(f"{options.rate:g} requests a second; {time.monotonic() - began:.0f} s in all")
    return 0 if all(finding.ok for finding in findings) else 1


def _run(console: Console, ground: Ground, name: str, *, late: bool) -> Sequence[Finding]:
    if late:
        return [Finding(name, "to be run", "it was not", ("the rows before took too long",))]
    began = time.monotonic()
    try:
        findings = ROWS[name](ground)
    except (AssertionError, ApiError, LoadError, OSError, LookupError, ValueError) as error:
        findings = [Finding(name, "to come to an end", "it did not", (f"{type(error).__name__}: {error}",))]
    for finding in findings:
        mark = "[green]ok[/green]" if finding.ok else "[red]MISSED[/red]"
        text = "\n    ".join([finding.measured, *finding.problems])
        console.print(f"» {name} ({time.monotonic() - began:.0f} s) {mark}: {escape(text)}", soft_wrap=True)
    return findings
