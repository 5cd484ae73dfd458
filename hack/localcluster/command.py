"""Run a short program of the host and turn its failure into an error that says what to do."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from localcluster.errors import ClusterError

# A shell of a plain user, or cron, may lack the folders of iptables and ip.
SEARCH_PATH = os.pathsep.join(
    [os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"]
)
ERROR_LINES = 8


def run(
    argv: Sequence[str | Path],
    *,
    stdin: str | None = None,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    remedy: str = "Read the lines above; `python3 hack/localcluster down` cleans up.",
) -> str:
    """Run a program to its end and return its standard output."""
    words = [str(word) for word in argv]
    settings = {**os.environ, "PATH": SEARCH_PATH, "LC_ALL": "C", **(environment or {})}
    try:
        done = subprocess.run(
            words,
            input=stdin,
            stdin=None if stdin is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd=cwd,
            env=settings,
            check=False,
        )
    except FileNotFoundError as missing:
        raise ClusterError(f"{words[0]} is not installed.", remedy) from missing
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()[-ERROR_LINES:]
        what = "\n  ".join([f"`{' '.join(words[:6])}` ended with {done.returncode}:", *lines])
        raise ClusterError(what, remedy)
    return done.stdout
