"""Durable, umask-independent file operations: all that changes the volume goes through here."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from engine_builder import faults
from engine_builder.errors import is_full

if TYPE_CHECKING:
    from collections.abc import Iterator

DIRECTORY_MODE = 0o755
"""Triton pods of another uid read what we write."""
FILE_MODE = 0o644

_KIBI = 1024

_NO_FSYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EBADF})


def write_file(path: Path, content: bytes) -> None:
    """Write a new file that survives a crash once this returns."""
    with create_file(path) as fd:
        write_all(fd, content)
        os.fsync(fd)


@contextlib.contextmanager
def create_file(path: Path) -> Iterator[int]:
    """Open a file that must not exist yet; yields its descriptor."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
    try:
        os.fchmod(fd, FILE_MODE)
        yield fd
    finally:
        os.close(fd)


def write_all(fd: int, content: bytes | memoryview) -> None:
    """Write all bytes: os.write may take only a part of them."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(fd, rest) :]


def make_directory(path: Path) -> None:
    """Make one directory, or open up an existing one, so that every uid can read it."""
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=DIRECTORY_MODE)
    if path.stat().st_mode & DIRECTORY_MODE != DIRECTORY_MODE:
        path.chmod(DIRECTORY_MODE)


def make_directories(path: Path, *, below: Path) -> None:
    """Make every directory from `below` (which exists) down to `path`."""
    current = below
    for part in path.relative_to(below).parts:
        current /= part
        make_directory(current)


def sync_directory(path: Path) -> None:
    """Make renames and new names in a directory survive a crash, where the volume can."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _NO_FSYNC:
            raise
    finally:
        os.close(fd)


def sync_tree(root: Path) -> None:
    """Flush every file and directory below `root`, and itself."""
    for folder, _, names in os.walk(root):
        for path in (Path(folder) / name for name in names):
            if not path.is_symlink():  # its text is part of the directory
                _sync_file(path)
        sync_directory(Path(folder))


def _sync_file(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def discard(path: Path, *, trash: Path) -> None:
    """Take `path` out of sight in one step, then delete it.

    A full volume may have no room for another name in the trash: then it is deleted in place.
    """
    hidden = trash / f"{path.name[:100]}.{os.urandom(8).hex()}"
    try:
        path.rename(hidden)
        faults.point("volume.discard", path.name)
    except OSError as error:
        if not is_full(error):
            raise
        hidden = path
    delete(hidden)


def delete(path: Path) -> None:
    """Delete a file, a link or a whole directory; a missing one is fine."""
    with contextlib.suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def replace_file(path: Path, content: bytes, *, staging: Path) -> None:
    """Put `content` at `path` in one step; the half-written file lives in `staging`."""
    temporary = staging / os.urandom(8).hex()
    write_file(temporary, content)
    temporary.rename(path)
    sync_directory(path.parent)


def read_file(path: Path) -> bytes | None:
    """Return what a regular file holds, or None where there is none; follows no link."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.ENXIO}:
            return None
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        return None
    with os.fdopen(fd, "rb") as file:
        return file.read()


def human(size: float) -> str:
    """Return bytes as people write them: 9.8Gi."""
    for unit in ("", "Ki", "Mi", "Gi"):
        if size < _KIBI:
            return f"{size:.1f}{unit}" if unit else f"{size:.0f} bytes"
        size /= _KIBI
    return f"{size:.1f}Ti"
