"""From a URI to local files: a registry of schemes, and the copy that all work is done on."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from engine_builder import files, source, store
from engine_builder.contract import Reason
from engine_builder.errors import JobError
from engine_builder.mounted import MountedLocation
from engine_builder.progress import Progress
from engine_builder.remote import Access, Objects, RemoteLocation, Scratch
from engine_builder.source import Location

if TYPE_CHECKING:
    from engine_builder.credentials import Credentials

_URI = re.compile(r"([a-z][a-z0-9+.-]*)://")


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """What a job has around it: a mounted claim, the ways to elsewhere, room to unpack."""

    source_root: Path
    access: Access
    scratch: Scratch | None
    progress: Progress


Scheme = Callable[[str, Surroundings], Location]
"""Makes a Location of a URI."""

_SCHEMES: dict[str, Scheme] = {}


def scheme(*names: str) -> Callable[[Scheme], Scheme]:
    """Register the function that locates URIs of some schemes."""

    def register(function: Scheme) -> Scheme:
        _SCHEMES.update(dict.fromkeys(names, function))
        return function

    return register


def locate(
    uri: str,
    source_root: Path,
    *,
    access: Access | None = None,
    scratch: Scratch | None = None,
    progress: Progress | None = None,
) -> Location:
    """Return where the source of a URI lies; nothing is opened yet.

    Args:
        uri: `pvc://<claim>/<path>`, one of the remote schemes, or a plain path.
        source_root: Where the claim of a `pvc://` URI is mounted.
        access: Hosts and credentials for remote schemes. Default: no host.
        scratch: Where artefacts are unpacked. Default: none can be.
        progress: Told of what is unpacked.

    Raises:
        JobError: `SourceNotFound` for a scheme that is not known, `UnsafeSource`, `AccessDenied`.
    """
    found = _URI.match(uri)
    name = found.group(1) if found else ""
    if name not in _SCHEMES:
        known = ", ".join(sorted(f"{s}://" for s in _SCHEMES if s))
        raise JobError(Reason.SOURCE_NOT_FOUND, f"{uri}: the scheme {name}:// is not supported; use {known}")
    around = Surroundings(source_root, access or Access(), scratch, progress or Progress(quiet=True))
    return _SCHEMES[name](uri, around)


def shown(uri: str) -> str:
    """Return a URI as people may see it: the query of a web address can be a signature."""
    return uri.partition("?")[0] if uri.startswith("https://") else uri


@scheme("pvc")
def _pvc(uri: str, around: Surroundings) -> Location:
    """`pvc://<claim>/<path>`: the claim is mounted at the source root."""
    claim, _, path = uri.removeprefix("pvc://").partition("/")
    if not claim:
        raise JobError(Reason.SOURCE_NOT_FOUND, f"{uri} names no claim: write pvc://<claim>/<path>")
    return MountedLocation(uri, source.safe_path(path, what=uri), root=around.source_root)


@scheme("")
def _plain(uri: str, _around: Surroundings) -> Location:
    """Locate a plain path of the command line; links above its last component are the caller's own."""
    path = Path(uri).absolute()
    if path.is_dir() and not path.is_symlink():
        return MountedLocation(uri, PurePosixPath(), root=path)
    return MountedLocation(uri, PurePosixPath(path.name), root=path.parent)


@scheme("s3", "gs", "az")
def _cloud(uri: str, around: Surroundings) -> Location:
    """`s3://<bucket>/<key>` and its like: the key is taken as it is written."""
    name, _, rest = uri.partition("://")
    bucket, _, path = rest.partition("/")
    if not bucket or not path:
        raise JobError(Reason.SOURCE_NOT_FOUND, f"{uri}: write {name}://<bucket>/<path>")

    def make(credentials: Credentials, bundle: str) -> Objects:
        from engine_builder.cloud import open_store

        return open_store(uri, credentials=credentials, bundle=bundle)

    return _remote(uri, _exact_path(path, uri), around, make)


@scheme("https")
def _https(uri: str, around: Surroundings) -> Location:
    """`https://<host>/<path>`, with a query or without; messages never show the query."""
    parts = urlsplit(uri)
    path = unquote(parts.path).lstrip("/")
    if not parts.hostname or not path or "@" in parts.netloc:
        raise JobError(Reason.SOURCE_NOT_FOUND, f"{shown(uri)}: write https://<host>/<path>")

    def make(credentials: Credentials, bundle: str) -> Objects:
        from engine_builder.web import Web

        return Web(uri, credentials=credentials, bundle=bundle)

    return _remote(shown(uri), _exact_path(path, shown(uri)), around, make)


@scheme("oci")
def _oci(uri: str, around: Surroundings) -> Location:
    """`oci://<registry>/<repository>:<tag>` or `@sha256:<digest>`: the artefact is a directory."""
    scratch = around.scratch
    if scratch is None:
        raise JobError(Reason.INTERNAL_ERROR, f"{uri}: there is no room to unpack an artefact in")
    room = scratch

    def make(credentials: Credentials, bundle: str) -> Objects:
        from engine_builder.oci import Artefact

        return Artefact(uri, credentials=credentials, bundle=bundle, scratch=room, progress=around.progress)

    return _remote(uri, PurePosixPath(), around, make)


def _exact_path(text: str, uri: str) -> PurePosixPath:
    """Return a path in which nothing is left out: `a//b` and `a/./b` are other keys than `a/b`."""
    path = source.safe_path(text, what=uri)
    if str(path) != text.rstrip("/"):
        raise JobError(Reason.UNSAFE_SOURCE, f"{uri}: {text!r} has an empty part or a '.'; rename the file")
    return path


def _remote(
    uri: str, path: PurePosixPath, around: Surroundings, make: Callable[[Credentials, str], Objects]
) -> Location:
    from engine_builder import hosts
    from engine_builder.confined import Confined
    from engine_builder.credentials import Credentials, trust
    from engine_builder.gate import Gate

    credentials = Credentials.read(around.access.credentials, uri=uri)
    try:
        gate = Gate([hosts.parse(line) for line in around.access.allowed_hosts])
    except ValueError as error:
        raise JobError(Reason.HOST_NOT_ALLOWED, f"allowedHosts of the ModelRepository: {error}") from error
    confined = Confined(
        lambda: make(credentials, trust(credentials)), gate=gate, uri=uri, credentials=credentials
    )
    return RemoteLocation(uri, path, objects=confined, pauses=around.access.pauses)


@dataclasses.dataclass(frozen=True)
class SingleFile:
    """A file that a spec names besides the model: `field` is where, `sha256` what it must be if given."""

    uri: str
    root: Path
    field: str
    max_bytes: int
    sha256: str | None = None
    access: Access | None = None

    def copy(self, into: Path, *, require_space: Callable[[int], None], progress: Progress) -> str:
        """Copy it into a new file; returns its sha256.

        Raises:
            JobError: `SourceNotFound`, `UnsafeSource`, `SourceTooLarge`, `DigestMismatch`, `VolumeFull`.
        """
        scratch = Scratch(into.parent / store.SCRATCH, self.max_bytes)
        found = locate(self.uri, self.root, access=self.access, scratch=scratch, progress=progress)
        with contextlib.closing(dataclasses.replace(found, field=f"{self.field}.uri")) as location:
            path = _file_of(location)
            require_space(location.size(path))
            digest, _ = source.read_once(location, path, into=into, limit=self.max_bytes, progress=progress)
        files.delete(scratch.directory)
        if self.sha256 not in {None, digest}:
            raise JobError(
                Reason.DIGEST_MISMATCH,
                f"{shown(self.uri)} has sha256 {digest}, but {self.field}.sha256 says {self.sha256}: "
                "put the right file back, or correct the digest",
            )
        return digest


def _file_of(location: Location) -> PurePosixPath:
    """Return the file that a location means: itself, or of an artefact the .npz file that lies in it."""
    if location.path != PurePosixPath():
        return location.path
    found = sorted(name for name in location.names() or () if name.endswith(".npz"))
    if len(found) != 1:
        what = f"several: {', '.join(found[: source.LISTED])}" if found else "none"
        raise JobError(Reason.SOURCE_NOT_FOUND, f"{location.uri} must hold one .npz file, and holds {what}")
    return location.path / found[0]


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

    A model that does not lie on this machine is looked at in the directory `aside`, where it isn't
    copied anyway. `externals` reads the references out of an ONNX file (in production in a child process).
    """

    location: Location
    externals: Callable[[Path], Sequence[External]]
    max_bytes: int
    progress: Progress
    into: Path | None = None
    aside: Path | None = None
    require_space: Callable[[int], None] = lambda _size: None
    expected: str | None = None
    _sizes: dict[str, int] = dataclasses.field(default_factory=dict)

    def fetch(self) -> Fetched:
        """Read everything that the source consists of and compare its digest; closes the location.

        Raises:
            JobError: any user's fault with the source, `VolumeFull`, `VolumeError`, and what can
                go wrong on the way to a remote one.
        """
        with contextlib.closing(self.location):
            return self._fetch()

    def _fetch(self) -> Fetched:
        model = source.find_model(self.location)
        digest = self._read(model, store.MODEL_FILE, into=self._place_of_model(model))
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
        place = self._place_of_model(model)
        path = place / store.MODEL_FILE if place else self.location.in_place(model)
        if path is None:
            raise JobError(Reason.INTERNAL_ERROR, f"{self.location.uri}: there is no place to look at it")
        try:
            return self.externals(path)
        except JobError as error:
            if self.expected and digest != self.expected and error.reason is Reason.INVALID_MODEL:
                raise self._mismatch(digest) from error
            raise

    def _place_of_model(self, model: PurePosixPath) -> Path | None:
        """Return the directory that the model is copied into, or None where it is read in place."""
        return self.into or (self.aside if self.location.in_place(model) is None else None)

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
        return self._read(model.parent / relative, name, into=self.into)

    def _read(self, path: PurePosixPath, stored: str, *, into: Path | None) -> str:
        size = self.location.size(path)
        done = sum(self._sizes.values())
        if done + size > self.max_bytes:
            raise source.too_large(self.location, done + size, self.max_bytes)
        target = None
        if into is not None:
            self.require_space(size)
            target = into / stored
            files.make_directories(target.parent, below=into)
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
