"""Artefacts of OCI registries (`oci://registry/repository:tag`): files as layers, or packed in a tar.

A layer's file name is its title (`org.opencontainers.image.title`) with all its folders; a single
layer without one is the model. What oras does well, references and the way to a token, is
its; the transfers are `web`'s, because they are resumed and checked.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import dataclasses
import hashlib
import json
import shutil
import tarfile
import zlib
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

import oras.auth.token
import oras.container

from engine_builder import files, names, source, web
from engine_builder.contract import Reason
from engine_builder.errors import JobError
from engine_builder.progress import Meter, Progress
from engine_builder.remote import Found, Interrupted, Scratch

if TYPE_CHECKING:
    import requests

    from engine_builder.credentials import Credentials

TITLE = "org.opencontainers.image.title"
LOGIN_KEY = ".dockerconfigjson"
ONLY_FILE = "model.onnx"

_INDEX = "application/vnd.oci.image.index.v1+json"
_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    _INDEX,
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MANIFEST_BYTES = 4 << 20
_UNAUTHORIZED = 401
_OK = 200
_TARS = (".tar", ".tar.gz", ".tgz")


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer of the manifest; `name` is empty where it has no title."""

    digest: str
    size: int
    name: str
    is_tar: bool


@dataclasses.dataclass(frozen=True)
class _Unpacked:
    """A file in a tar that was fetched."""

    tar: Path
    member: str
    size: int
    digest: str


@dataclasses.dataclass
class _Fetching:
    """A tar on its way into the scratch directory; it goes on where it broke."""

    path: Path
    digest: Any
    done: int = 0


class Artefact:
    """The files of one artefact, by their names in it."""

    def __init__(
        self, uri: str, *, credentials: Credentials, bundle: str, scratch: Scratch, progress: Progress
    ) -> None:
        self._uri, self._scratch, self._progress = uri, scratch, progress
        self._container = oras.container.Container(uri.removeprefix("oci://"))
        self._session = web.session(bundle=bundle)
        self._auth = oras.auth.token.TokenAuth()
        self._auth.session, self._auth._tls_verify = self._session, bundle  # noqa: SLF001 - as oras' own Registry
        login = _login(credentials, self._container.registry, uri)
        if login is not None:
            self._auth.set_basic_auth(*login)
        self._headers: dict[str, str] = {}
        self._layers: tuple[Layer, ...] | None = None
        self._fetching: dict[str, _Fetching] = {}
        self._files: dict[str, Layer | _Unpacked] | None = None

    def find(self, path: str) -> Found | None:
        """Return a file as it is now, or None where the path is that of a directory."""
        found = self._listed().get(path)
        if found is not None:
            sha256 = found.digest.removeprefix("sha256:") if isinstance(found, Layer) else None
            return Found(found.size, found.digest, sha256)
        if not path or any(name.startswith(f"{path}/") for name in self._listed()):
            return None
        shown = ", ".join(sorted(self._listed())[: source.LISTED])
        raise JobError(
            Reason.SOURCE_NOT_FOUND, f"{self._uri}: there is no {path!r} in the artefact, which holds {shown}"
        )

    def names(self, path: str) -> list[str]:
        """Return what lies in a directory of the artefact."""
        top = PurePosixPath(path)
        found = (PurePosixPath(name) for name in self._listed())
        return sorted({name.relative_to(top).parts[0] for name in found if name.is_relative_to(top)})

    def read(self, path: str, found: Found, start: int) -> Iterator[bytes]:
        """Yield a file's bytes from `start` on."""
        entry = self._listed().get(path)
        if entry is None or entry.digest != found.tag:
            raise web.changed(self._uri)
        if isinstance(entry, _Unpacked):
            return _read_member(entry, start)
        return self._read_blob(entry, start)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    # the manifest

    def _listed(self) -> dict[str, Layer | _Unpacked]:
        if self._layers is None:
            self._layers = tuple(self._read_layers())
        if self._files is None:
            named = _without_common_folder(dict(self._entries(self._layers)))
            if not named:
                raise JobError(Reason.SOURCE_NOT_FOUND, f"{self._uri}: no layer of the artefact holds a file")
            self._files = named
        return self._files

    def _entries(self, layers: tuple[Layer, ...]) -> Iterator[tuple[str, Layer | _Unpacked]]:
        for layer in layers:
            if layer.is_tar:
                yield from self._unpacked(layer)
            elif layer.name or len(layers) == 1:
                name = layer.name or ONLY_FILE
                yield str(source.safe_path(name, what=f"{self._uri}: title of a layer")), layer

    def _read_layers(self) -> Iterator[Layer]:
        manifest = self._manifest(self._container.manifest_url())
        if "manifests" in manifest:
            listed = manifest["manifests"]
            if len(listed) != 1:
                raise JobError(
                    Reason.SOURCE_NOT_FOUND,
                    f"{self._uri} is an index of {len(listed)} artefacts: name one of them by its digest",
                )
            manifest = self._manifest(self._container.manifest_url(str(listed[0]["digest"])))
        for entry in manifest.get("layers") or []:
            name = str((entry.get("annotations") or {}).get(TITLE, ""))
            kind = str(entry.get("mediaType", ""))
            is_tar = kind.endswith((".tar", "+tar", ".tar+gzip", ".tar.gzip")) or name.endswith(_TARS)
            yield Layer(_sha256(entry, self._uri), int(entry["size"]), name, is_tar)

    def _manifest(self, place: str) -> dict[str, Any]:
        response = self._get(f"https://{place}", {"Accept": ", ".join(_MANIFESTS)})
        with response:
            if response.status_code != _OK:
                web.refuse(response, uri=self._uri)
            content = response.raw.read(_MANIFEST_BYTES + 1)
        if len(content) > _MANIFEST_BYTES:
            raise JobError(Reason.SOURCE_TOO_LARGE, f"{self._uri}: a manifest of more than 4 MiB")
        wanted = place.rpartition("/")[2]
        if wanted.startswith("sha256:") and wanted != f"sha256:{hashlib.sha256(content).hexdigest()}":
            raise JobError(
                Reason.SOURCE_CHANGED, f"{self._uri}: the registry's manifest is not the one of that digest"
            )
        try:
            manifest = json.loads(content)
        except ValueError as error:
            raise JobError(Reason.SOURCE_NOT_FOUND, f"{self._uri}: the answer is no manifest") from error
        if not isinstance(manifest, dict):
            raise JobError(Reason.SOURCE_NOT_FOUND, f"{self._uri}: the answer is no manifest")
        return manifest

    def _get(self, url: str, headers: Mapping[str, str]) -> requests.Response:
        """Ask the registry; where it wants a token, get one and ask again."""
        response = web.get(self._session, url, headers={**headers, **self._headers}, uri=self._uri)
        if response.status_code != _UNAUTHORIZED:
            return response
        response.close()
        self._headers = self._authorization(response)
        return web.get(self._session, url, headers={**headers, **self._headers}, uri=self._uri)

    def _authorization(self, response: requests.Response) -> dict[str, str]:
        challenge = response.headers.get("Www-Authenticate", "")
        basic = getattr(self._auth, "_basic_auth", None)
        if challenge.lower().startswith("basic"):
            return {"Authorization": f"Basic {basic}"} if basic else {}
        self._auth.token = None
        try:
            headers, _ = self._auth.authenticate_request(response, {})
        except ValueError as error:
            raise JobError(
                Reason.ACCESS_DENIED, f"{self._uri}: the registry gives no token: {type(error).__name__}"
            ) from error
        except OSError as error:  # requests' own are OSErrors
            raise Interrupted(
                f"the registry's token service does not answer ({type(error).__name__})"
            ) from error
        return {name: value for name, value in headers.items() if name == "Authorization"}

    # blobs

    def _read_blob(self, layer: Layer, start: int) -> Generator[bytes, None, None]:
        headers = {"Range": f"bytes={start}-"} if start else {}
        response = self._get(f"https://{self._container.get_blob_url(layer.digest)}", headers)
        if response.status_code not in {_OK, web.PARTIAL} or (start and response.status_code == _OK):
            if response.status_code == _OK:
                response.close()
                raise JobError(
                    Reason.SOURCE_UNREACHABLE,
                    f"{self._uri}: the transfer broke, and the registry can't go on",
                )
            web.refuse(response, uri=self._uri)
        return web.pieces(response)

    # tars

    def _unpacked(self, layer: Layer) -> Iterator[tuple[str, _Unpacked]]:
        path = self._fetch(layer)
        total = 0
        try:
            with tarfile.open(path, "r:*") as tar:
                for member in tar:
                    total += member.size
                    if total > self._scratch.most_bytes:
                        raise self._too_large(total)
                    if member.isreg():
                        name = source.safe_path(member.name, what=f"{self._uri}: name in the tar")
                        yield str(name), _Unpacked(path, member.name, member.size, layer.digest)
        except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise JobError(Reason.INVALID_MODEL, f"{self._uri}: the tar is damaged ({error})") from error

    def _fetch(self, layer: Layer) -> Path:
        """Bring a tar into the scratch directory; asked again, it goes on where it broke."""
        if layer.size > self._scratch.most_bytes:
            raise self._too_large(layer.size)
        found = self._fetching.get(layer.digest) or self._begin(layer)
        meter = Meter(self._progress, layer.name or "layer", layer.size)
        with found.path.open("ab") as target:
            while found.done < layer.size:
                began = found.done
                try:
                    self._append(layer, found, target=target, meter=meter)
                except Interrupted:
                    if found.done == began:
                        raise
        if f"sha256:{found.digest.hexdigest()}" != layer.digest:
            self._fetching.pop(layer.digest).path.unlink()
            raise JobError(
                Reason.SOURCE_CHANGED, f"{self._uri}: a layer came with another digest than its own"
            )
        return found.path

    def _append(self, layer: Layer, found: _Fetching, *, target: IO[bytes], meter: Meter) -> None:
        began = found.done
        with contextlib.closing(self._read_blob(layer, began)) as pieces:
            for piece in pieces:
                target.write(piece)
                found.digest.update(piece)
                found.done += len(piece)
                meter.add(len(piece))
        if found.done == began:
            raise Interrupted("the registry sends nothing")

    def _begin(self, layer: Layer) -> _Fetching:
        directory = self._scratch.directory
        files.make_directory(directory)
        free = shutil.disk_usage(directory).free
        if free < layer.size:
            raise JobError(
                Reason.VOLUME_FULL,
                f"{self._uri}: a tar of {files.human(layer.size)} has to be unpacked and "
                f"{files.human(free)} are free: free space or enlarge the volume",
            )
        found = _Fetching(directory / layer.digest.removeprefix("sha256:"), hashlib.sha256())
        found.path.write_bytes(b"")
        self._fetching[layer.digest] = found
        return found

    def _too_large(self, size: int) -> JobError:
        most = files.human(self._scratch.most_bytes)
        return JobError(
            Reason.SOURCE_TOO_LARGE,
            f"{self._uri}: its tar holds {files.human(size)} or more and at most {most} are unpacked "
            "here: raise maxSourceSize of the ModelRepository, or set source.sha256 so that nothing is "
            "looked up",
        )


def _without_common_folder(
    found: dict[str, Layer | _Unpacked],
) -> dict[str, Layer | _Unpacked]:
    """Drop folders that all files share: packing a folder puts its own name on top."""
    while found and all("/" in name for name in found) and len({n.split("/", 1)[0] for n in found}) == 1:
        found = {name.split("/", 1)[1]: entry for name, entry in found.items()}
    return found


def _read_member(entry: _Unpacked, start: int) -> Iterator[bytes]:
    with tarfile.open(entry.tar, "r:*") as tar:
        file: IO[bytes] | None = tar.extractfile(entry.member)
        if file is None:
            return
        file.seek(start)
        while piece := file.read(web.CHUNK):
            yield piece


def _sha256(entry: Mapping[str, Any], uri: str) -> str:
    digest = str(entry.get("digest", ""))
    text = digest.removeprefix("sha256:")
    if not digest.startswith("sha256:") or not names.is_digest(text):  # it becomes the name of a file
        raise JobError(
            Reason.UNSAFE_SOURCE, f"{uri}: a layer with digest {digest[:80]!r}: only sha256 is read"
        )
    return digest


def _login(credentials: Credentials, registry: str, uri: str) -> tuple[str, str] | None:
    """Return user and password for a registry: of a `docker login`, else `username` and `password`."""
    user, config = credentials.get("username"), credentials.get(LOGIN_KEY)
    if config is None:
        return (user, credentials.get("password") or "") if user is not None else None
    try:
        logins = json.loads(config).get("auths") or {}
        entry = logins.get(registry) or logins.get(f"https://{registry}") or {}
        if entry.get("auth"):
            name, _, password = base64.b64decode(entry["auth"], validate=True).decode().partition(":")
            return name, password
    except (ValueError, AttributeError, binascii.Error) as error:
        raise JobError(
            Reason.ACCESS_DENIED, f"{uri}: {LOGIN_KEY} of the Secret is not what docker writes"
        ) from error
    return (entry["username"], entry.get("password", "")) if entry.get("username") else None
