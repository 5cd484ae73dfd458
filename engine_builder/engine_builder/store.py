"""The store: one directory per engine, complete with its MANIFEST or not there at all."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
from typing import TYPE_CHECKING

from engine_builder import faults, files, names
from engine_builder.contract import Reason, Report, StoreManifest, from_json, to_json
from engine_builder.errors import JobError
from engine_builder.files import human
from engine_builder.volume import KEEPER_STAGING, Layout

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MANIFEST = "MANIFEST"
MODEL_FILE = "model.onnx"
"""Triton's default file name for this backend: config.pbtxt need not name it."""
PLAN_FILE = "model.plan"
"""The same for TensorRT's."""
IR_FILE = "model.xml"
"""The same for OpenVINO's; `model.bin` with the weights lies beside it."""
REPORT_FILE = "report.json"
REFERENCE_FILE = "reference.npz"
SOURCE_FOLDER = ".source"
"""The model as it came, in the entry of one that was converted: what answers are compared with."""
SCRATCH = ".scratch"
"""Directory of an attempt for what must be unpacked first; no engine holds it."""
RESERVED = frozenset({MANIFEST, MODEL_FILE, REPORT_FILE, REFERENCE_FILE, SOURCE_FOLDER, SCRATCH})

_CHUNK = 4 << 20
_SPARE = 1 << 20


def entries(layout: Layout) -> Iterator[tuple[str, StoreManifest]]:
    """Yield the complete engines of the store by name."""
    for name in list_engines(layout):
        manifest = read_manifest(layout, name)
        if manifest is not None:
            yield name, manifest


def list_engines(layout: Layout) -> list[str]:
    """Return the names of all that lies in the store, complete or not."""
    with contextlib.suppress(FileNotFoundError):
        return sorted(p.name for p in layout.store.iterdir())
    return []


def read_manifest(layout: Layout, engine: str) -> StoreManifest | None:
    """Return an engine's manifest, or None where there is no complete engine of that name."""
    entry = layout.store / engine
    if not names.is_engine(engine) or entry.is_symlink():
        return None
    content = files.read_file(entry / MANIFEST)
    if content is None:
        return None
    try:
        manifest = from_json(StoreManifest, content)
    except ValueError:
        return None
    return manifest if manifest.engine == engine else None


def is_whole(layout: Layout, manifest: StoreManifest) -> bool:
    """Tell cheaply whether an entry still has the files of its manifest, by their sizes."""
    entry = layout.store / manifest.engine
    try:
        found = sum((entry / name).lstat().st_size for name in manifest.files)
    except FileNotFoundError:
        return False
    return found == manifest.size_bytes


def damaged_files(layout: Layout, manifest: StoreManifest) -> list[str]:
    """Read an entry completely and return the files that are not what the manifest says."""
    entry = layout.store / manifest.engine
    return [name for name, digest in sorted(manifest.files.items()) if _digest(entry / name) != digest]


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except FileNotFoundError:
        return ""
    return digest.hexdigest()


@contextlib.contextmanager
def staging(layout: Layout, uid: str) -> Iterator[Path]:
    """Yield an attempt's own empty directory; whatever is left in it at the end goes."""
    if not names.is_staging(uid) or uid.startswith(KEEPER_STAGING):
        raise JobError(Reason.INTERNAL_ERROR, f"{uid!r} cannot name a staging directory")
    place = layout.staging / uid
    files.delete(place)  # of an earlier container of the same pod
    files.make_directory(place)
    faults.point("store.staging", uid)
    try:
        yield place
    finally:
        files.delete(place)


def require_space(layout: Layout, size: int) -> None:
    """Fail before the first byte when `size` more bytes and a little cannot fit.

    Raises:
        JobError: `VolumeFull`, with both figures.
    """
    needed, free = size + size // 20 + _SPARE, layout.free()
    if free < needed:
        raise JobError(
            Reason.VOLUME_FULL,
            f"the repository has {human(free)} free and {human(needed)} are needed: "
            "free space or enlarge the volume",
        )


def seal(place: Path, draft: StoreManifest) -> StoreManifest:
    """Write the MANIFEST of a finished staging directory; everything is on the disk after.

    `draft.files` may hold digests that are known already; the other files are read.
    """
    found = sorted(path for path in place.rglob("*") if path.is_file())
    listed = {str(path.relative_to(place)): path for path in found}
    manifest = dataclasses.replace(
        draft,
        files={name: draft.files.get(name) or _digest(path) for name, path in listed.items()},
        size_bytes=sum(path.stat().st_size for path in found),
    )
    files.sync_tree(place)
    files.write_file(place / MANIFEST, to_json(manifest).encode())
    faults.point("store.seal", manifest.engine)
    files.sync_directory(place)
    return manifest


def report_of(manifest: StoreManifest, message: str) -> Report:
    """Return the report of a job that has put this engine into the store, or found it there."""
    return Report(
        Reason.SUCCEEDED,
        message,
        engine=manifest.engine,
        sha256=manifest.source_sha256,
        size_bytes=manifest.size_bytes,
        signature=manifest.signature,
    )


def publish(layout: Layout, place: Path, manifest: StoreManifest) -> StoreManifest:
    """Show a sealed staging directory as the engine, in one rename.

    Where another attempt was faster its entry stays and ours is dropped; an entry that is
    damaged gives way. Returns the manifest that stands in the store.
    """
    entry = layout.store / manifest.engine
    for _ in range(2):
        try:
            place.rename(entry)  # never replaces a directory that holds something
            faults.point("store.publish", manifest.engine)
        except OSError as error:
            if error.errno not in {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}:
                raise
        else:
            files.sync_directory(layout.store)
            return manifest
        standing = find(layout, engine=manifest.engine, key=manifest.key)
        if standing is not None:
            return standing
        with contextlib.suppress(FileNotFoundError):
            files.discard(entry, trash=layout.trash)
    raise JobError(
        Reason.VOLUME_ERROR,
        f"store/{manifest.engine} is damaged and could not be replaced; will be tried again",
    )


def find(layout: Layout, *, engine: str, key: str) -> StoreManifest | None:
    """Return the whole entry of that name and key, or None.

    Raises:
        JobError: the entry is whole but was made for another key.
    """
    manifest = read_manifest(layout, engine)
    if manifest is None or not is_whole(layout, manifest):
        return None
    if manifest.key != key:
        raise JobError(
            Reason.INTERNAL_ERROR,
            f"store/{engine} was made for key {manifest.key[:16]}…, not {key[:16]}…",
        )
    return manifest
