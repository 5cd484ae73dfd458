"""The first bytes of a plan: whose it is, of which version and size. Pure.

Both TensorRT and TensorRT for RTX write their version as four bytes at offset 24; the size of the whole is
known for the latter only.
"""

from __future__ import annotations

import dataclasses
import struct

from engine_builder.contract import Reason
from engine_builder.errors import JobError

SIZE = 64
"""Bytes that are looked at."""

_TENSORRT, _RTX = b"ftrt", b"vtrt"
_VERSION = slice(24, 28)


@dataclasses.dataclass(frozen=True)
class PlanHeader:
    """What a plan says of itself; `size` is None where the format does not tell."""

    magic: bytes
    version: tuple[int, int, int, int]
    size: int | None

    @property
    def version_text(self) -> str:
        """Return the version as `10.9.0.34`."""
        return ".".join(map(str, self.version))


def read(beginning: bytes) -> PlanHeader:
    """Read a plan's first `SIZE` bytes.

    Raises:
        JobError: `InternalError`, this is no plan.
    """
    magic = beginning[:4]
    if len(beginning) < SIZE or magic not in {_TENSORRT, _RTX}:
        raise _damaged(f"it begins with {beginning[:8].hex() or 'nothing'}")
    first, second, third, fourth = beginning[_VERSION]
    size = struct.unpack_from("<Q", beginning, 16)[0] if magic == _RTX else None
    return PlanHeader(magic, (first, second, third, fourth), size)


def check(header: PlanHeader, *, written: int, compiler_version: str) -> None:
    """Check that a plan is whole and of the compiler that is said to have made it.

    Raises:
        JobError: `InternalError`.
    """
    if header.size is not None and header.size != written:
        raise _damaged(f"it says {header.size} bytes and has {written}")
    stated = [int(part) for part in compiler_version.split(".")[: len(header.version)] if part.isdecimal()]
    if list(header.version[: len(stated)]) != stated:
        raise _damaged(f"it is of TensorRT {header.version_text}, and {compiler_version} made it")


def _damaged(how: str) -> JobError:
    return JobError(Reason.INTERNAL_ERROR, f"TensorRT wrote no whole plan: {how}; will be tried again")
