"""Sources on a mounted volume that others write to.

Every component below the root is opened without following links, and only regular files count.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from engine_builder.contract import Reason
from engine_builder.errors import JobError, volume_fault
from engine_builder.source import LISTED, Content, Location

_CHUNK = 4 << 20
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclasses.dataclass(frozen=True)
class MountedLocation(Location):
    """A source on this machine: `path` below `root`."""

    root: Path = dataclasses.field(kw_only=True)

    def names(self) -> list[str] | None:
        """Return what lies in the directory at `path`, or None where that is a file."""
        fd = self._open_below(self.path)
        try:
            return os.listdir(fd) if stat.S_ISDIR(os.fstat(fd).st_mode) else None  # noqa: PTH208 - a descriptor
        finally:
            os.close(fd)

    def size(self, path: PurePosixPath) -> int:
        """Return the size of a regular file below the root."""
        with self._opened(path) as fd:
            return os.fstat(fd).st_size

    @contextlib.contextmanager
    def open(self, path: PurePosixPath) -> Iterator[Content]:
        """Open a regular file below the root."""
        with self._opened(path) as fd:
            yield Content(os.fstat(fd).st_size, iter(lambda: os.read(fd, _CHUNK), b""))

    def in_place(self, path: PurePosixPath) -> Path | None:
        """Return where the file lies."""
        return self.root / path

    @contextlib.contextmanager
    def _opened(self, path: PurePosixPath) -> Iterator[int]:
        fd = self._open_below(path)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise JobError(Reason.UNSAFE_SOURCE, f"{self.uri}: {str(path)!r} is not a regular file")
            yield fd
        finally:
            os.close(fd)

    def _open_below(self, path: PurePosixPath) -> int:
        """Open a regular file or directory below the root; no component may be a link."""
        try:
            fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            for part in path.parts:
                fd = _step(fd, part)
        except OSError as error:
            raise self._translate(error, path) from error
        if not _is_plain(os.fstat(fd).st_mode):
            os.close(fd)
            raise JobError(
                Reason.UNSAFE_SOURCE, f"{self.uri}: {str(path)!r} is neither a regular file nor a directory"
            )
        return fd

    def _translate(self, error: OSError, path: PurePosixPath) -> JobError:
        if error.errno == errno.ELOOP or (error.errno == errno.ENOTDIR and self._has_link(path)):
            return JobError(
                Reason.UNSAFE_SOURCE,
                f"{self.uri}: a part of {str(path)!r} is a symbolic link; put the file itself there",
            )
        if error.errno in {errno.ENOENT, errno.ENOTDIR}:
            return self.missing(path, hint=self._neighbours(path))
        if error.errno in {errno.EACCES, errno.EPERM}:
            return JobError(
                Reason.SOURCE_NOT_FOUND,
                f"{self.uri}: uid {os.getuid()} may not read {str(path)!r}; make it readable for everyone",
            )
        if error.errno == errno.ENXIO:
            return JobError(Reason.UNSAFE_SOURCE, f"{self.uri}: {str(path)!r} is not a regular file")
        return volume_fault(error)

    def _has_link(self, path: PurePosixPath) -> bool:
        return any((self.root / p).is_symlink() for p in (path, *path.parents))

    def _neighbours(self, path: PurePosixPath) -> str:
        """Return what does lie there, as a hint to a misspelt name."""
        for parent in path.parents:
            try:
                found = sorted(p.name for p in (self.root / parent).iterdir())
            except OSError:
                continue
            shown = ", ".join(found[:LISTED]) + (", …" if len(found) > LISTED else "")
            where = "the top" if parent == PurePosixPath() else repr(str(parent))
            return f" ({where} holds {shown or 'nothing'})"
        return ""


def _step(fd: int, part: str) -> int:
    try:
        return os.open(part, _FLAGS, dir_fd=fd)
    finally:
        os.close(fd)


def _is_plain(mode: int) -> bool:
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)
