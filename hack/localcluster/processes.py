"""Processes that outlive the command: start, recognise and end them, each by its own pid."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from localcluster.command import SEARCH_PATH
from localcluster.errors import ClusterError
from localcluster.layout import Layout

MARKER = "LOCALCLUSTER_PROCESS"
"""In the environment of every process that is started. containerd hands it to its shims, so that those are
found even when every record is lost; containers get an environment of their own."""


@dataclass(frozen=True)
class Process:
    """A process; its start time (clock ticks since boot) tells it from a later one with the same pid."""

    pid: int
    start_time: int


def parse_stat(stat: str) -> tuple[str, int]:
    """Return the state letter and the start time that stand in /proc/PID/stat."""
    # The second field is the program's name in parentheses and may itself hold blanks and parentheses.
    fields = stat.rpartition(")")[2].split()
    return fields[0], int(fields[19])


def identify(pid: int) -> Process | None:
    """Return the process of a pid, or None when it is gone or only waits to be reaped."""
    try:
        state, start_time = parse_stat(Path(f"/proc/{pid}/stat").read_text())
    except (OSError, IndexError, ValueError):
        return None
    return None if state in "ZX" else Process(pid, start_time)


def is_running(process: Process) -> bool:
    """Tell whether this very process still runs."""
    return identify(process.pid) == process


def start(layout: Layout, name: str, argv: Sequence[str]) -> Process:
    """Start a process in a session of its own and record it."""
    layout.processes.mkdir(parents=True, exist_ok=True)
    with layout.log_of(name).open("ab") as log:
        # No pipe is inherited: a caller that reads this command's output would wait for ever.
        child = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd="/",
            env={"PATH": SEARCH_PATH, "HOME": str(layout.state), MARKER: str(layout.state)},
        )
    process = identify(child.pid)
    if process is None:
        raise ClusterError(f"{name} ended at once.", f"Read {layout.log_of(name)}.")
    _record_of(layout, name).write_text(json.dumps(asdict(process)))
    return process


def recorded(layout: Layout, name: str) -> Process | None:
    """Return the process that was started under a name, when it still runs."""
    try:
        process = Process(**json.loads(_record_of(layout, name).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return process if is_running(process) else None


def marked() -> dict[Process, Path]:
    """Find all processes of clusters of this kind, shims too, and the state folder that each belongs to."""
    found = {}
    for folder in Path("/proc").iterdir():
        process = identify(int(folder.name)) if folder.name.isdigit() else None
        if process is None:
            continue
        with suppress(OSError):
            owner = parse_mark((folder / "environ").read_bytes())
            if owner is not None:
                found[process] = owner
    return found


def parse_mark(environment: bytes) -> Path | None:
    """Return the state folder that a process environment names, if any."""
    prefix = f"{MARKER}=".encode()
    marks = (variable for variable in environment.split(b"\0") if variable.startswith(prefix))
    return next((Path(os.fsdecode(mark.removeprefix(prefix))) for mark in marks), None)


def end(process: Process) -> None:
    """Kill one process; a reused pid is left alone."""
    # Nothing of a cluster that goes down is worth saving, and a clean stop of pods takes their grace period.
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        # Checked after the handle is open: from here on it can only mean the process that was looked at.
        if is_running(process):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    except ProcessLookupError:
        pass
    finally:
        os.close(handle)


def end_all(find: Callable[[], set[Process]], *, seconds: float = 30.0) -> int:
    """End what `find` returns until it returns nothing; return how many were ended."""
    deadline = time.monotonic() + seconds
    ended: set[Process] = set()
    while found := find():
        if time.monotonic() > deadline:
            pids = ", ".join(str(process.pid) for process in found)
            raise ClusterError(
                f"These processes do not end: {pids}.", "Look at them with ps, then run `down` again."
            )
        for process in found:
            end(process)
        ended |= found
        time.sleep(0.05)
    return len(ended)


def _record_of(layout: Layout, name: str) -> Path:
    return layout.processes / f"{name}.json"
