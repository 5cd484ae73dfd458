"""Sources behind a network: looked at, listed and read with patience, resumed where a transfer broke."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path, PurePosixPath
from typing import Protocol, TypeVar

from engine_builder.contract import Reason
from engine_builder.errors import EngineBuilderError, JobError
from engine_builder.source import Content, Location

PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds between attempts that brought no byte; after the last one the job gives up, and is tried again."""
SCRATCH_BYTES = 2 << 30
"""Most that a job without a repository may unpack: what ONNX allows one file to hold."""

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class Access:
    """What a job may use to reach a source.

    `allowed_hosts` are lines as `hosts.parse` reads them; `credentials` is the directory of a
    mounted Secret, one file for each key.
    """

    allowed_hosts: tuple[str, ...] = ()
    credentials: Path | None = None
    pauses: tuple[float, ...] = PAUSES


@dataclasses.dataclass(frozen=True)
class Scratch:
    """A directory for what must be unpacked before it can be read, and how many bytes it may take."""

    directory: Path
    most_bytes: int


@dataclasses.dataclass(frozen=True)
class Found:
    """A file as it was found: bytes, and a tag that another content has not.

    `sha256` is known where the place itself goes by digests.
    """

    size: int
    tag: str
    sha256: str | None = None


class Interrupted(EngineBuilderError):
    """Something on the way failed that may pass: ask again."""


class Objects(Protocol):
    """What a scheme must be able to do; paths are relative to the URI's bucket, host or artefact.

    Everything raises JobError, or Interrupted where asking again may help.
    """

    def find(self, path: str) -> Found | None:
        """Return a file as it is now, or None where the path is that of a directory."""

    def names(self, path: str) -> list[str]:
        """Return what lies in a directory."""

    def read(self, path: str, found: Found, start: int) -> Iterator[bytes]:
        """Yield a file's bytes from `start` on; another content than was found is `SourceChanged`."""

    def close(self) -> None:
        """Let go of connections and processes."""


@dataclasses.dataclass(frozen=True)
class RemoteLocation(Location):
    """A source that is reached through a network."""

    objects: Objects = dataclasses.field(kw_only=True)
    pauses: tuple[float, ...] = dataclasses.field(default=PAUSES, kw_only=True)
    _found: dict[PurePosixPath, Found | None] = dataclasses.field(default_factory=dict, init=False)

    def names(self) -> list[str] | None:
        """Return what lies in the directory at `path`, or None where that is a file."""
        if self._find(self.path) is not None:
            return None
        return self._patiently(lambda: self.objects.names(_text(self.path)))

    def size(self, path: PurePosixPath) -> int:
        """Return the size of a file, as it was at the first look."""
        return self._file(path).size

    @contextlib.contextmanager
    def open(self, path: PurePosixPath) -> Iterator[Content]:
        """Open a file as it was at the first look; another content is `SourceChanged`."""
        found = self._file(path)
        with contextlib.closing(self._pieces(path, found)) as pieces:
            yield Content(found.size, pieces, found.sha256)

    def close(self) -> None:
        """End what reads."""
        self.objects.close()

    def _file(self, path: PurePosixPath) -> Found:
        found = self._find(path)
        if found is None:
            raise JobError(Reason.SOURCE_NOT_FOUND, f"{self.uri}: {str(path)!r} is no file but a directory")
        return found

    def _find(self, path: PurePosixPath) -> Found | None:
        if path not in self._found:
            self._found[path] = self._patiently(lambda: self.objects.find(_text(path)))
        return self._found[path]

    def _pieces(self, path: PurePosixPath, found: Found) -> Generator[bytes, None, None]:
        done, failures = 0, 0
        while done < found.size:
            try:
                for piece in self.objects.read(_text(path), found, done):
                    done, failures = done + len(piece), 0
                    yield piece
                why = Interrupted(f"the transfer ended after {done} of {found.size} bytes")
            except Interrupted as interrupted:
                why = interrupted
            if done < found.size:
                self._pause(failures, why)
                failures += 1

    def _patiently(self, ask: Callable[[], _T]) -> _T:
        failures = 0
        while True:
            try:
                return ask()
            except Interrupted as error:
                self._pause(failures, error)
                failures += 1

    def _pause(self, failures: int, error: Interrupted) -> None:
        if failures >= len(self.pauses):
            raise JobError(
                Reason.SOURCE_UNREACHABLE,
                f"{self.uri}: {error} ({failures + 1} attempts); it is tried again later",
            ) from error
        time.sleep(self.pauses[failures])


def _text(path: PurePosixPath) -> str:
    return "" if path == PurePosixPath() else str(path)
