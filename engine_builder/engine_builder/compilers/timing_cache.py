"""TensorRT's timing cache on the volume: one file per TensorRT version and target.

It only makes builds faster. So whatever is wrong with it, it is left out or thrown away and the build goes
on. A file carries the digest of its content, for TensorRT takes garbage without a word.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

from engine_builder import files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from engine_builder.contract import Target
    from engine_builder.volume import Layout

LARGEST_BYTES = 512 << 20
"""A larger one is begun anew."""

_MAGIC = b"triton-operator timing cache 1 "
_HEADER_BYTES = len(_MAGIC) + 65
_PATIENCE_SECONDS = 5.0
_POLL_SECONDS = 0.05


@dataclasses.dataclass(frozen=True)
class CacheFile:
    """The cache of one TensorRT version and target."""

    root: Path
    path: Path

    def load(self) -> bytes:
        """Return the timings, or nothing where there are none or they are damaged."""
        try:
            content = files.read_file(self.path) or b""
        except OSError:
            return b""
        header, timings = content[:_HEADER_BYTES], content[_HEADER_BYTES:]
        return timings if header == _header(timings) and len(content) <= LARGEST_BYTES else b""

    def merge(self, combine: Callable[[bytes], bytes], *, staging: Path) -> str:
        """Replace the file by what `combine` makes of its present content; returns what was done.

        Builds of other models write the same file: the lock keeps their timings. On a volume without
        locks one of two builds that end at once loses its timings, and nothing else.
        """
        try:
            files.make_directories(self.path.parent, below=self.root)
            with self._locked() as locked:
                if not locked:
                    return "not kept: another build held its lock"
                timings = combine(self.load())
                if len(timings) > LARGEST_BYTES - _HEADER_BYTES:
                    self.discard()
                    return f"begun anew: it had grown beyond {files.human(LARGEST_BYTES)}"
                files.replace_file(self.path, _header(timings) + timings, staging=staging)
        except OSError as error:
            return f"not kept: {error.strerror or error}"
        return f"kept: {files.human(len(timings))}"

    def discard(self) -> None:
        """Throw the cache away, where there is one."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[bool]:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        fd = os.open(self.path.with_suffix(".lock"), flags, files.FILE_MODE)
        try:
            yield _lock(fd)
        finally:
            os.close(fd)


def at(layout: Layout, *, version: str, target: Target) -> CacheFile:
    """Return the cache of a TensorRT version (`10.9.0.34`) and target."""
    return CacheFile(layout.root, layout.timing_caches / version / _file(target))


def discard_all(layout: Layout, *, target: Target) -> None:
    """Throw away a target's caches of every version: TensorRT crashed, and they may be why."""
    for path in layout.timing_caches.glob(f"*/{_file(target)}"):
        CacheFile(layout.root, path).discard()


def _file(target: Target) -> str:
    name = f"{target.product or 'any'}-{target.compute_capability}"
    return re.sub(r"[^A-Za-z0-9.-]+", "-", name).lstrip(".") + ".timing"


def _header(timings: bytes) -> bytes:
    return _MAGIC + hashlib.sha256(timings).hexdigest().encode() + b"\n"


def _lock(fd: int) -> bool:
    """Take the lock, within a time that a GPU can be held for it."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in {errno.EWOULDBLOCK, errno.EACCES}:
                return True  # this volume has no locks
        else:
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
