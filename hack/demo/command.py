"""Run the programs that the demo is made of: kubectl and helm."""

import subprocess
from collections.abc import Sequence

from demo.errors import DemoError


def output(command: Sequence[str], *, stdin: str | None = None) -> str:
    """Return what a program prints.

    Raises:
        DemoError: it failed or is not there; the message holds what it said.
    """
    try:
        ended = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise DemoError(
            f"{command[0]} is not in PATH: run this through `make demo`, or install it"
        ) from error
    if ended.returncode != 0:
        raise DemoError(f"`{' '.join(command)}` failed:\n{ended.stderr.strip() or ended.stdout.strip()}")
    return ended.stdout
