"""A plan while it is written: counted, digested, and its first bytes kept."""

from __future__ import annotations

import contextlib
import hashlib
import os
from typing import TYPE_CHECKING

from engine_builder import files
from engine_builder.compilers import plan_header

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class PlanFile:
    """Take a plan in pieces of any size.

    TensorRT ignores a writer that takes less than it was given, and swallows what it raises: so the first
    error is kept here, and the caller looks.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._digest = hashlib.sha256()
        self.beginning = b""
        self.written = 0
        self.error: OSError | None = None

    def take(self, piece: bytes | memoryview) -> int:
        """Write a piece and return how many bytes of it are on the volume: all or none."""
        view = memoryview(piece).cast("B")
        if self.error is not None:
            return 0
        try:
            files.write_all(self._fd, view)
        except OSError as error:
            self.error = error
            return 0
        self._digest.update(view)
        self.beginning += bytes(view[: plan_header.SIZE - len(self.beginning)])
        self.written += len(view)
        return len(view)

    @property
    def sha256(self) -> str:
        """Return the digest of what was written."""
        return self._digest.hexdigest()


@contextlib.contextmanager
def create(path: Path) -> Iterator[PlanFile]:
    """Open a new plan; what it holds is on the disk at the end.

    Raises:
        OSError: the volume failed, now or in a piece before.
    """
    with files.create_file(path) as fd:
        plan = PlanFile(fd)
        yield plan
        if plan.error is not None:
            raise plan.error
        os.fsync(fd)
