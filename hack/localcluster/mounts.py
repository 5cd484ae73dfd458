"""Mounts below a folder, and how to be rid of them."""

import re
from dataclasses import dataclass
from pathlib import Path

from localcluster.command import run
from localcluster.errors import ClusterError

ATTEMPTS = 5


@dataclass(frozen=True)
class Mount:
    """A mount point and the type of its filesystem."""

    point: Path
    kind: str


def parse_mountinfo(text: str) -> list[Mount]:
    """Read /proc/self/mountinfo; the kernel's order is kept."""
    return [_parse_line(line) for line in text.splitlines()]


def mounts_below(folder: Path) -> list[Mount]:
    """Return the mounts below a folder, the innermost first."""
    mounts = parse_mountinfo(Path("/proc/self/mountinfo").read_text())
    return [mount for mount in reversed(mounts) if folder in mount.point.parents]


def unmount(point: Path) -> None:
    """Detach one mount; a process that still uses it keeps it until it ends."""
    run(["umount", "--lazy", point])


def unmount_below(folder: Path) -> int:
    """Detach every mount below a folder and return how many there were."""
    count = 0
    for _ in range(ATTEMPTS):
        mounts = mounts_below(folder)
        if not mounts:
            return count
        count += len(mounts)
        run(["umount", "--lazy", *(mount.point for mount in mounts)])
    raise ClusterError(f"Mounts keep appearing below {folder}.", "See what mounts there: `findmnt`.")


def _parse_line(line: str) -> Mount:
    fields = line.split(" ")
    kind = fields[fields.index("-") + 1]
    point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4])
    return Mount(Path(point), kind)
