"""The repository's volume: where things lie, what it can do, whose it is, who may write."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
from typing import TYPE_CHECKING

from engine_builder import faults, files
from engine_builder.contract import Volume

if TYPE_CHECKING:
    from pathlib import Path

KEEPER_STAGING = "keeper-"
"""Prefix of the keeper's own directories in .staging; no job's uid starts with it."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """Paths on the volume mounted at `root`."""

    root: Path

    @property
    def store(self) -> Path:
        """Where engines lie, one directory each."""
        return self.root / "store"

    @property
    def servers(self) -> Path:
        """Where trees lie: `<server>/<release>/`, and `<server>/<release>.json` beside."""
        return self.root / "servers"

    @property
    def staging(self) -> Path:
        """Where things are made before one rename shows them."""
        return self.root / ".staging"

    @property
    def trash(self) -> Path:
        """Where things go in one rename before they are deleted."""
        return self.root / ".trash"

    @property
    def timing_caches(self) -> Path:
        """Where TensorRT's timings lie: `<version>/<target>.timing`; all of it may be deleted."""
        return self.root / ".cache" / "tensorrt"

    def make(self) -> None:
        """Make the directories that everything else takes for granted."""
        for path in (self.store, self.servers, self.staging, self.trash):
            files.make_directory(path)

    def free(self) -> int:
        """Return the bytes that this uid may still write."""
        found = os.statvfs(self.root)
        return found.f_bavail * found.f_frsize


@dataclasses.dataclass(frozen=True)
class Owner:
    """Whose volume this is; a second cluster or claim on the same disk must not write."""

    cluster: str
    namespace: str
    claim_uid: str

    def to_json(self) -> str:
        """Return the content of the `.owner` marker."""
        return json.dumps({"cluster": self.cluster, "namespace": self.namespace, "claimUID": self.claim_uid})

    @classmethod
    def from_json(cls, text: bytes) -> Owner:
        """Read a marker; a damaged one belongs to nobody we know."""
        try:
            fields = json.loads(text)
            return cls(str(fields["cluster"]), str(fields["namespace"]), str(fields["claimUID"]))
        except (ValueError, KeyError, TypeError):
            return cls("unreadable", "unreadable", "unreadable")

    def __str__(self) -> str:
        return f"cluster {self.cluster}, namespace {self.namespace}, claim {self.claim_uid}"


def claim(layout: Layout, owner: Owner) -> Owner:
    """Mark an unmarked volume as `owner`'s; return whose it is now."""
    marker = layout.root / ".owner"
    found = files.read_file(marker)
    if not found:
        _write_marker(layout, marker, owner, crashed=found is not None)
        found = files.read_file(marker) or b""
    return Owner.from_json(found)


def _write_marker(layout: Layout, marker: Path, owner: Owner, *, crashed: bool) -> None:
    """Write the marker; an empty one is of a writer that crashed on a volume without hard links."""
    temporary = layout.staging / f"{KEEPER_STAGING}{os.urandom(8).hex()}"
    files.write_file(temporary, owner.to_json().encode())
    try:
        if crashed:
            temporary.rename(marker)
        else:
            _place(temporary, marker, owner)
    finally:
        files.delete(temporary)
    files.sync_directory(layout.root)
    faults.point("volume.owner")


def _place(temporary: Path, marker: Path, owner: Owner) -> None:
    """Put the marker there unless another came first: a link never replaces."""
    try:
        marker.hardlink_to(temporary)
    except FileExistsError:
        return
    except OSError:  # no hard links on this volume
        with contextlib.suppress(FileExistsError):
            files.write_file(marker, owner.to_json().encode())


def try_lock(layout: Layout) -> int | None:
    """Take the volume's lock; return its descriptor, or None while another keeper has it."""
    fd = os.open(layout.root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, files.FILE_MODE)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        if error.errno in {errno.EWOULDBLOCK, errno.EACCES}:
            return None
        raise
    return fd


def measure(layout: Layout, *, rename: bool, links: bool, fsync: bool) -> Volume:
    """Return space as it is now, with abilities probed before."""
    found = os.statvfs(layout.root)
    return Volume(
        bytes_total=found.f_blocks * found.f_frsize,
        bytes_free=found.f_bavail * found.f_frsize,
        rename=rename,
        links=links,
        fsync=fsync,
    )


def probe(layout: Layout) -> Volume:
    """Find out by trying what the volume can do."""
    place = layout.staging / f"{KEEPER_STAGING}{os.urandom(8).hex()}"
    files.make_directory(place)
    try:
        return measure(layout, rename=_can_rename(place), links=_can_link(place), fsync=_can_sync(place))
    finally:
        files.delete(place)


def _can_rename(place: Path) -> bool:
    try:
        (place / "a").mkdir()
        (place / "a" / "file").touch()
        (place / "a").rename(place / "b")
        return (place / "b" / "file").exists() and not (place / "a").exists()
    except OSError:
        return False


def _can_link(place: Path) -> bool:
    try:
        for name in ("old", "new"):
            (place / name).symlink_to(f"../{name}")
        (place / "new").rename(place / "old")
        return str((place / "old").readlink()) == "../new"
    except OSError:
        return False


def _can_sync(place: Path) -> bool:
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(fd)
