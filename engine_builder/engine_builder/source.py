"""Reading a source safely, and its digest.

A source is one ONNX file and the external data files that it names. Its sha256 is

* that of the ONNX file, when it has no external data: `sha256sum model.onnx`;
* else that of the canonical listing, a line `<sha256>  <name>` per file, sorted:
  `sha256sum model.onnx weights.bin | LC_ALL=C sort | sha256sum`, run in its directory.

A source comes from a volume that others write. So every component below its root is opened
without following links, only regular files count, and all further work is done on a copy.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import os
import stat
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from engine_builder import files
from engine_builder.contract import Reason
from engine_builder.errors import JobError, volume_fault
from engine_builder.progress import Meter, Progress

if TYPE_CHECKING:
    from collections.abc import Mapping

_CHUNK = 4 << 20
_LISTED = 5
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclasses.dataclass(frozen=True)
class Location:
    """Where a source lies on this machine: `path` below `root`, and the URI it came from.

    `field` is where users wrote that URI.
    """

    uri: str
    root: Path
    path: PurePosixPath
    field: str = "source.uri"


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


def open_below(location: Location, path: PurePosixPath) -> int:
    """Open a regular file or directory below the root; no component may be a link.

    Raises:
        JobError: `SourceNotFound`, `UnsafeSource`, or `VolumeError`.
    """
    try:
        fd = os.open(location.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for part in path.parts:
            fd = _step(fd, part)
    except OSError as error:
        raise _translate(error, location, path) from error
    if not _is_plain(os.fstat(fd).st_mode):
        os.close(fd)
        raise JobError(
            Reason.UNSAFE_SOURCE, f"{location.uri}: {str(path)!r} is neither a regular file nor a directory"
        )
    return fd


def _step(fd: int, part: str) -> int:
    try:
        return os.open(part, _FLAGS, dir_fd=fd)
    finally:
        os.close(fd)


def _is_plain(mode: int) -> bool:
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def _translate(error: OSError, location: Location, path: PurePosixPath) -> JobError:
    uri = location.uri
    if error.errno == errno.ELOOP or (error.errno == errno.ENOTDIR and _has_link(location, path)):
        return JobError(
            Reason.UNSAFE_SOURCE,
            f"{uri}: a part of {str(path)!r} is a symbolic link; put the file itself there",
        )
    if error.errno in {errno.ENOENT, errno.ENOTDIR}:
        return JobError(
            Reason.SOURCE_NOT_FOUND,
            f"{uri}: {str(path)!r} does not exist{_neighbours(location, path)}; "
            f"put the file there or correct {location.field}",
        )
    if error.errno in {errno.EACCES, errno.EPERM}:
        return JobError(
            Reason.SOURCE_NOT_FOUND,
            f"{uri}: uid {os.getuid()} may not read {str(path)!r}; make it readable for everyone",
        )
    if error.errno == errno.ENXIO:
        return JobError(Reason.UNSAFE_SOURCE, f"{uri}: {str(path)!r} is not a regular file")
    return volume_fault(error)


def _has_link(location: Location, path: PurePosixPath) -> bool:
    return any((location.root / p).is_symlink() for p in (path, *path.parents))


def _neighbours(location: Location, path: PurePosixPath) -> str:
    """Return what does lie there, as a hint to a misspelt name."""
    for parent in path.parents:
        try:
            found = sorted(p.name for p in (location.root / parent).iterdir())
        except OSError:
            continue
        shown = ", ".join(found[:_LISTED]) + (", …" if len(found) > _LISTED else "")
        where = "the top" if parent == PurePosixPath() else repr(str(parent))
        return f" ({where} holds {shown or 'nothing'})"
    return ""


def find_model(location: Location) -> PurePosixPath:
    """Return the ONNX file that a location means: itself, or the one in its directory.

    Raises:
        JobError: `SourceNotFound` where a directory holds none, or several.
    """
    fd = open_below(location, location.path)
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            return location.path
        found = sorted(n for n in os.listdir(fd) if n.endswith(".onnx"))  # noqa: PTH208 - a descriptor
    finally:
        os.close(fd)
    if "model.onnx" in found:
        return location.path / "model.onnx"
    if len(found) == 1:
        return location.path / found[0]
    what = f"holds several: {', '.join(found[:_LISTED])}" if found else "holds no .onnx file"
    raise JobError(
        Reason.SOURCE_NOT_FOUND,
        f"{location.uri}: the directory {what}; name the file in source.uri, or call it model.onnx",
    )


def file_size(location: Location, path: PurePosixPath) -> int:
    """Return the size of a regular file below the root."""
    fd = open_below(location, path)
    try:
        return _regular_size(fd, location, path)
    finally:
        os.close(fd)


def _regular_size(fd: int, location: Location, path: PurePosixPath) -> int:
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        raise JobError(Reason.UNSAFE_SOURCE, f"{location.uri}: {str(path)!r} is not a regular file")
    return found.st_size


def read_once(
    location: Location, path: PurePosixPath, *, into: Path | None, limit: int, progress: Progress
) -> tuple[str, int]:
    """Hash a file in one pass, copying it `into` a new file when given.

    Returns:
        The sha256 and the number of bytes.

    Raises:
        JobError: `SourceTooLarge` past `limit` bytes, even if the file grows meanwhile.
    """
    fd = open_below(location, path)
    try:
        size = _regular_size(fd, location, path)
        if size > limit:
            raise too_large(location, size, limit)
        meter = Meter(progress, path.name, size)
        if into is None:
            result = _pump(fd, None, limit=limit, meter=meter, location=location)
        else:
            with files.create_file(into) as target:
                result = _pump(fd, target, limit=limit, meter=meter, location=location)
        meter.finish()
        return result
    finally:
        os.close(fd)


def _pump(
    source: int, target: int | None, *, limit: int, meter: Meter, location: Location
) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    while chunk := os.read(source, _CHUNK):
        size += len(chunk)
        if size > limit:
            raise too_large(location, size, limit)
        digest.update(chunk)
        if target is not None:
            files.write_all(target, chunk)
        meter.add(len(chunk))
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
