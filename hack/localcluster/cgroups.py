"""The cgroup of each node's pods, in every hierarchy of the host."""

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from localcluster.errors import ClusterError
from localcluster.mounts import parse_mountinfo
from localcluster.nodes import NODES
from localcluster.processes import Process, identify

REMOVAL_SECONDS = 5.0
UNIFIED = Path("/sys/fs/cgroup/cgroup.controllers")


def create() -> None:
    """Make each node's cgroup: the kubelet refuses to start without it."""
    for hierarchy in _hierarchies("cgroup"):
        for node in NODES:
            _create_v1(hierarchy / node.cgroup)
    if UNIFIED.exists():
        for node in NODES:
            _create_v2(UNIFIED.parent / node.cgroup)


def members() -> Iterator[Process]:
    """Find every process in a node's cgroup: the containers."""
    for root in _roots():
        for listing in root.rglob("cgroup.procs"):
            with suppress(OSError):
                yield from filter(None, (identify(int(pid)) for pid in listing.read_text().split()))


def remove() -> None:
    """Remove the cgroups of the nodes, the innermost first."""
    for root in _roots():
        folders = sorted((entry for entry in root.rglob("*") if entry.is_dir()), reverse=True)
        for folder in [*folders, root]:
            _remove(folder)


def exist() -> bool:
    """Tell whether any node's cgroup exists."""
    return bool(_roots())


def _hierarchies(*kinds: str) -> list[Path]:
    mounts = parse_mountinfo(Path("/proc/self/mountinfo").read_text())
    return sorted({mount.point for mount in mounts if mount.kind in kinds})


def _roots() -> list[Path]:
    candidates = (
        hierarchy / node.cgroup for hierarchy in _hierarchies("cgroup", "cgroup2") for node in NODES
    )
    return [candidate for candidate in candidates if candidate.is_dir()]


def _create_v1(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for name in ("cpuset.cpus", "cpuset.mems"):  # empty in a new cgroup, and then no process may enter it
        if (folder / name).exists():
            (folder / name).write_text((folder.parent / name).read_text())


def _create_v2(folder: Path) -> None:
    controllers = " ".join(f"+{name}" for name in UNIFIED.read_text().split())
    (folder.parent / "cgroup.subtree_control").write_text(controllers)
    folder.mkdir(exist_ok=True)
    (folder / "cgroup.subtree_control").write_text(controllers)


def _remove(folder: Path) -> None:
    deadline = time.monotonic() + REMOVAL_SECONDS
    while not _removed(folder):  # the kernel lets go of a killed process a moment later
        if time.monotonic() > deadline:
            raise ClusterError(
                f"The cgroup {folder} is busy.", "See its cgroup.procs, then run `down` again."
            )
        time.sleep(0.02)


def _removed(folder: Path) -> bool:
    with suppress(OSError):
        folder.rmdir()
    return not folder.is_dir()
