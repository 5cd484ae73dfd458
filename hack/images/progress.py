"""Run programs with their progress on the terminal and their whole output in a log file."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from typing import BinaryIO

_BEAT_SECONDS = 15
_TAIL_LINES = 40
_started = time.monotonic()


class BuildError(Exception):
    """An image cannot be built; the message says which step failed and what to do."""


def say(text: str) -> None:
    """Print a line of progress, with the seconds since the start."""
    print(f"[{time.monotonic() - _started:6.1f} s] {text}", file=sys.stderr, flush=True)


def run(
    command: Sequence[str], *, log: Path, title: str, show: Callable[[str], str | None] = lambda _line: None
) -> None:
    """Run a program; say a line for each of its lines that `show` finds worth one.

    Raises:
        BuildError: the program failed; the message ends with the last lines it wrote.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    with (
        log.open("ab") as output,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
        ) as process,
    ):
        _follow(process, output=output, title=title, show=show)
    if process.returncode != 0:
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL_LINES:])
        raise BuildError(
            f"{title} failed ({command[0]} ended with {process.returncode}); {log} ends with:\n{tail}"
        )


@contextlib.contextmanager
def _ended_with_us(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Take the program and all that it started along when this build is interrupted."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        raise


def _follow(
    process: subprocess.Popen[bytes], *, output: BinaryIO, title: str, show: Callable[[str], str | None]
) -> None:
    assert process.stdout is not None  # noqa: S101 - Popen was given a pipe
    now = title
    pending = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            if not selector.select(_BEAT_SECONDS):
                say(f"  … still at: {now}")
                continue
            chunk = os.read(process.stdout.fileno(), 65536)
            if not chunk:
                return
            output.write(chunk)
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                text = show(line.decode(errors="replace").rstrip())
                if text:
                    now = text
                    say(f"  {text}")
