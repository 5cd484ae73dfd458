"""Fault points: where tests end a process right after an effect, before its answer is used.

An effect is what others can see: a write that the API server took, a load, a rename on the volume. Each is
followed by a call of `point`, which is a debugging aid and inert in production: nothing happens unless the
environment variable TRITON_OPERATOR_FAULTS names a directory. Then effects are noted in its file `log`, and
the one that its file `kill` names (`triton.load#3` is the third load of all) ends its process as the kernel
would. `make faults` kills after every effect of a scenario and compares how it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
from pathlib import Path

VARIABLE = "TRITON_OPERATOR_FAULTS"

_DIRECTORY = os.environ.get(VARIABLE, "")


def point(name: str, about: str = "") -> None:
    """Say that an effect has happened; `about` tells which object it changed."""
    if _DIRECTORY:
        _note(Path(_DIRECTORY), name, about)


def _note(directory: Path, name: str, about: str) -> None:
    """Append `sequence role pid name about` to the log, one process at a time."""
    with (directory / "log").open("a+", encoding="utf-8") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        log.seek(0)
        earlier = [line.split()[3] for line in log]
        role = "".join(sys.argv[1:2])  # the command: run (the operator), keeper, prepare, …
        log.write(f"{len(earlier) + 1} {role} {os.getpid()} {name} {about}\n")
        log.flush()
        if _is_to_die(directory / "kill", f"{name}#{1 + earlier.count(name)}"):
            os.kill(os.getpid(), signal.SIGKILL)


def _is_to_die(order: Path, effect: str) -> bool:
    """Tell whether the order names this effect; it is carried out once."""
    with contextlib.suppress(FileNotFoundError):
        if order.read_text(encoding="utf-8").strip() == effect:
            order.unlink()
            return True
    return False
