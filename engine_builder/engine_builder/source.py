"""A source, wherever it lies: finding its model, reading its files once, and its digest.

A source is one ONNX file and the external data files that it names. Its sha256 is

* that of the ONNX file, when it has no external data: `sha256sum model.onnx`;
* else that of the canonical listing, a line `<sha256>  <name>` per file, sorted:
  `sha256sum model.onnx weights.bin | LC_ALL=C sort | sha256sum`, run in its directory.

Whoever writes sources may be no friend: each Location looks after what it opens, and all
further work is done on a copy.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from engine_builder import files
from engine_builder.contract import Reason
from engine_builder.errors import JobError
from engine_builder.progress import Meter, Progress

if TYPE_CHECKING:
    from collections.abc import Mapping

LISTED = 5
"""Names that a message shows of a directory."""


@dataclasses.dataclass(frozen=True)
class Content:
    """A file that is open for one reading: its size in bytes, and its bytes in pieces.

    `sha256` is what the bytes must have where the place itself says so.
    """

    size: int
    pieces: Iterator[bytes]
    sha256: str | None = None


@dataclasses.dataclass(frozen=True)
class Location(abc.ABC):
    """Where a source lies: a file or directory at `path`, below what the URI's scheme counts as the top.

    `field` is where users wrote that URI. Paths of files are relative to the same top.
    """

    uri: str
    path: PurePosixPath
    field: str = dataclasses.field(default="source.uri", kw_only=True)

    @abc.abstractmethod
    def names(self) -> list[str] | None:
        """Return what lies in the directory at `path`, or None where that is a file.

        Raises:
            JobError: `SourceNotFound`, `UnsafeSource`, and what can go wrong on the way.
        """

    @abc.abstractmethod
    def size(self, path: PurePosixPath) -> int:
        """Return the size of a file in bytes."""

    @abc.abstractmethod
    def open(self, path: PurePosixPath) -> contextlib.AbstractContextManager[Content]:
        """Open a file for one reading."""

    def in_place(self, path: PurePosixPath) -> Path | None:  # noqa: ARG002 - where it lies elsewhere
        """Return a file's path on this machine, or None where it lies elsewhere."""
        return None

    def close(self) -> None:  # noqa: B027 - most have nothing to close
        """Let go of what reading it has opened; it may be read again all the same."""

    def missing(self, path: PurePosixPath, *, hint: str = "") -> JobError:
        """Return the fault of a file that is not there."""
        return JobError(
            Reason.SOURCE_NOT_FOUND,
            f"{self.uri}: {str(path)!r} does not exist{hint}; put the file there or correct {self.field}",
        )


def safe_path(text: str, *, what: str) -> PurePosixPath:
    """Return a relative path that cannot leave its root by its name.

    Raises:
        JobError: `UnsafeSource`.
    """
    if text.startswith("/"):
        raise JobError(Reason.UNSAFE_SOURCE, f"{what}: {text!r} is absolute; give a relative path")
    if any(ord(c) < ord(" ") or c == "\\" for c in text):
        raise JobError(Reason.UNSAFE_SOURCE, f"{what}: {text!r} holds a control character or a backslash")
    path = PurePosixPath(text)
    if ".." in path.parts:
        raise JobError(Reason.UNSAFE_SOURCE, f"{what}: {text!r} holds '..'; name the file directly")
    return path


def find_model(location: Location) -> PurePosixPath:
    """Return the ONNX file that a location means: itself, or the one in its directory.

    Raises:
        JobError: `SourceNotFound` where a directory holds none, or several.
    """
    names = location.names()
    if names is None:
        return location.path
    found = sorted(name for name in names if name.endswith(".onnx"))
    if "model.onnx" in found:
        return location.path / "model.onnx"
    if len(found) == 1:
        return location.path / found[0]
    what = f"holds several: {', '.join(found[:LISTED])}" if found else "holds no .onnx file"
    raise JobError(
        Reason.SOURCE_NOT_FOUND,
        f"{location.uri}: the directory {what}; name the file in source.uri, or call it model.onnx",
    )


def read_once(
    location: Location, path: PurePosixPath, *, into: Path | None, limit: int, progress: Progress
) -> tuple[str, int]:
    """Hash a file in one pass, copying it `into` a new file when given.

    Returns:
        The sha256 and the number of bytes.

    Raises:
        JobError: `SourceTooLarge` past `limit` bytes, even if the file grows meanwhile.
    """
    with location.open(path) as content:
        if content.size > limit:
            raise too_large(location, content.size, limit)
        meter = Meter(progress, path.name, content.size)
        if into is None:
            found = _pump(content, None, limit=limit, meter=meter, location=location)
        else:
            with files.create_file(into) as target:
                found = _pump(content, target, limit=limit, meter=meter, location=location)
        meter.finish()
        if content.sha256 not in {None, found[0]}:
            raise JobError(
                Reason.SOURCE_CHANGED,
                f"{location.uri}: {path.name} came with sha256 {found[0]} instead of {content.sha256}",
            )
        return found


def _pump(
    content: Content, target: int | None, *, limit: int, meter: Meter, location: Location
) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    for piece in content.pieces:
        size += len(piece)
        if size > limit:
            raise too_large(location, size, limit)
        digest.update(piece)
        if target is not None:
            files.write_all(target, piece)
        meter.add(len(piece))
    return digest.hexdigest(), size


def too_large(location: Location, size: int, limit: int) -> JobError:
    """Return the fault of a source past the limit."""
    return JobError(
        Reason.SOURCE_TOO_LARGE,
        f"{location.uri} holds {files.human(size)} or more and at most {files.human(limit)} are allowed",
    )


def listing_digest(digests: Mapping[str, str]) -> str:
    """Return the sha256 of the canonical listing of name → sha256."""
    lines = sorted(f"{digest}  {name}\n".encode() for name, digest in digests.items())
    return hashlib.sha256(b"".join(lines)).hexdigest()


def source_digest(model: str, digests: Mapping[str, str]) -> str:
    """Return a source's sha256 from the digests of its files, by name."""
    return digests[model] if len(digests) == 1 else listing_digest(digests)
