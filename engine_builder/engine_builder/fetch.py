"""From a URI to local files: a registry of schemes, and the copy that all work is done on."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from engine_builder import files, source, store
from engine_builder.contract import Reason
from engine_builder.errors import JobError
from engine_builder.source import Location

if TYPE_CHECKING:
    from engine_builder.progress import Progress

Scheme = Callable[[str, Path], Location]
"""Makes a Location of a URI and the mounted source root."""

_SCHEMES: dict[str, Scheme] = {}
_URI = re.compile(r"([a-z][a-z0-9+.-]*)://")


def scheme(name: str) -> Callable[[Scheme], Scheme]:
    """Register the function that locates URIs of a scheme."""

    def register(function: Scheme) -> Scheme:
        _SCHEMES[name] = function
        return function

    return register


def locate(uri: str, source_root: Path) -> Location:
    """Return where the source of a URI lies on this machine.

    Raises:
        JobError: `SourceNotFound` for a scheme that is not known, `UnsafeSource`.
    """
    found = _URI.match(uri)
    name = found.group(1) if found else ""
    if name not in _SCHEMES:
        known = ", ".join(sorted(f"{s}://" for s in _SCHEMES if s))
        raise JobError(Reason.SOURCE_NOT_FOUND, f"{uri}: the scheme {name}:// is not supported; use {known}")
    return _SCHEMES[name](uri, source_root)


@scheme("pvc")
def _pvc(uri: str, source_root: Path) -> Location:
    """`pvc://<claim>/<path>`: the claim is mounted at the source root."""
    claim, _, path = uri.removeprefix("pvc://").partition("/")
    if not claim:
        raise JobError(Reason.SOURCE_NOT_FOUND, f"{uri} names no claim: write pvc://<claim>/<path>")
    return Location(uri=uri, root=source_root, path=source.safe_path(path, what=uri))


@scheme("")
def _plain(uri: str, _source_root: Path) -> Location:
    """Locate a plain path of the command line; links above its last component are the caller's own."""
    path = Path(uri).absolute()
    if path.is_dir() and not path.is_symlink():
        return Location(uri=uri, root=path, path=PurePosixPath())
    return Location(uri=uri, root=path.parent, path=PurePosixPath(path.name))


@dataclasses.dataclass(frozen=True)
class External:
    """One reference of a model to bytes in another file, relative to the model's directory."""

    tensor: str
    name: str
    offset: int
    length: int | None


@dataclasses.dataclass(frozen=True)
class Fetched:
    """A source that was read: its digest, its ONNX file's name, and the digests as stored."""

    sha256: str
    model: str
    files: Mapping[str, str]
    size: int


@dataclasses.dataclass
class Fetcher:
    """Read one source file by file, within a limit of bytes; copy it `into` a directory if given.

    `externals` reads the references out of an ONNX file (in production in a child process).
    """

    location: Location
    externals: Callable[[Path], Sequence[External]]
    max_bytes: int
    progress: Progress
    into: Path | None = None
    require_space: Callable[[int], None] = lambda _size: None
    expected: str | None = None
    _sizes: dict[str, int] = dataclasses.field(default_factory=dict)

    def fetch(self) -> Fetched:
        """Read everything that the source consists of and compare its digest.

        Raises:
            JobError: any user's fault with the source, `VolumeFull`, `VolumeError`.
        """
        model = source.find_model(self.location)
        digest = self._read(model, store.MODEL_FILE)
        references = self._references(model, digest)
        digests = {model.name: digest}
        for name in sorted({r.name for r in references}):
            digests[name] = self._read_external(model, name)
        self._check_lengths(references)
        found = source.source_digest(model.name, digests)
        if self.expected and found != self.expected:
            raise self._mismatch(found)
        stored = {store.MODEL_FILE if name == model.name else name: d for name, d in digests.items()}
        return Fetched(sha256=found, model=model.name, files=stored, size=sum(self._sizes.values()))

    def _references(self, model: PurePosixPath, digest: str) -> Sequence[External]:
        """Parse the model for its external data; a wrong digest is told before a broken file."""
        path = self.into / store.MODEL_FILE if self.into else self.location.root / model
        try:
            return self.externals(path)
        except JobError as error:
            if self.expected and digest != self.expected and error.reason is Reason.INVALID_MODEL:
                raise self._mismatch(digest) from error
            raise

    def _mismatch(self, found: str) -> JobError:
        return JobError(
            Reason.DIGEST_MISMATCH,
            f"{self.location.uri} has sha256 {found}, but source.sha256 says {self.expected}: "
            "put the right file back, or add a new version number for the new content",
        )

    def _read_external(self, model: PurePosixPath, name: str) -> str:
        relative = source.safe_path(name, what=f"external data of {model.name}")
        if str(relative) != name or name == model.name or relative.parts[0] in store.RESERVED:
            raise JobError(
                Reason.UNSAFE_SOURCE,
                f"external data of {model.name}: {name!r} cannot be the name of a data file; rename it "
                "and save the model again",
            )
        return self._read(model.parent / relative, name)

    def _read(self, path: PurePosixPath, stored: str) -> str:
        size = source.file_size(self.location, path)
        done = sum(self._sizes.values())
        if done + size > self.max_bytes:
            raise source.too_large(self.location, done + size, self.max_bytes)
        target = None
        if self.into is not None:
            self.require_space(size)
            target = self.into / stored
            files.make_directories(target.parent, below=self.into)
        digest, size = source.read_once(
            self.location, path, into=target, limit=self.max_bytes - done, progress=self.progress
        )
        self._sizes[stored] = size
        return digest

    def _check_lengths(self, references: Sequence[External]) -> None:
        for reference in references:
            size = self._sizes[reference.name]
            end = reference.offset + (reference.length or 0)
            if end > size:
                raise JobError(
                    Reason.INVALID_MODEL,
                    f"tensor {reference.tensor!r} needs bytes up to {end} of {reference.name!r}, "
                    f"which holds {size}: the data file is truncated or of another model",
                )
