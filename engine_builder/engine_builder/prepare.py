"""The prepare job: from a source to an engine in the store. And resolve: only its digest."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

from engine_builder import __version__, files, store
from engine_builder.contract import PREPARE_VERSION, Reason, Report, StoreManifest
from engine_builder.errors import JobError
from engine_builder.examine import Facts, examine
from engine_builder.fetch import External, Fetched, Fetcher, locate, shown
from engine_builder.isolation import isolated
from engine_builder.precision import AS_IT_IS, CALIBRATION_COPY, UNCONVERTED, Conversion
from engine_builder.remote import SCRATCH_BYTES, Access, Scratch
from engine_builder.volume import Layout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine_builder.progress import Progress

MAX_BYTES = 64 << 30
"""Largest source unless told otherwise."""
_ROOM_TO_CONVERT = 3
"""So many times its size a source needs besides its copy: what lies between, and the result."""


@dataclasses.dataclass(frozen=True)
class PrepareRequest:
    """What a prepare job was asked for; `uri` may be a plain path on the command line."""

    repository: Path
    engine: str
    key: str
    uri: str
    staging_uid: str
    sha256: str | None = None
    source_root: Path = Path("/source")
    max_bytes: int = MAX_BYTES
    conversion: Conversion = AS_IT_IS
    access: Access = dataclasses.field(default_factory=Access)


def prepare(request: PrepareRequest, progress: Progress) -> Report:
    """Make sure that the engine is in the store.

    Raises:
        JobError: the reason and what to do; nothing of the attempt is left then.
        OSError: the volume failed.
    """
    layout = Layout(request.repository)
    layout.make()
    standing = store.find(layout, engine=request.engine, key=request.key)
    if standing is not None:
        return store.report_of(standing, "the engine was in the store already")
    with store.staging(layout, request.staging_uid) as place:
        with progress.step("fetch"):
            fetched = _fetch(request, layout, place, progress)
            _fetch_calibration(request, layout, place, progress)
        if request.conversion.precision not in UNCONVERTED:
            store.require_space(layout, fetched.size * _ROOM_TO_CONVERT)
        facts = isolated(examine, place, request.conversion)
        files.delete(place / CALIBRATION_COPY)
        if facts.converted:
            fetched = _in_source_folder(fetched)
        progress.seconds.update(facts.seconds)
        with progress.step("store"):
            manifest = _store(request, layout, place, progress=progress, fetched=fetched, facts=facts)
    return store.report_of(manifest, _summary(fetched, facts))


def _fetch(request: PrepareRequest, layout: Layout, place: Path, progress: Progress) -> Fetched:
    scratch = Scratch(place / store.SCRATCH, request.max_bytes)
    location = locate(
        request.uri, request.source_root, access=request.access, scratch=scratch, progress=progress
    )
    fetched = Fetcher(
        location=location,
        externals=isolated_externals,
        max_bytes=request.max_bytes,
        progress=progress,
        into=place,
        require_space=lambda size: store.require_space(layout, size),
        expected=request.sha256,
    ).fetch()
    files.delete(place / store.SCRATCH)
    return fetched


def _fetch_calibration(request: PrepareRequest, layout: Layout, place: Path, progress: Progress) -> None:
    file = request.conversion.calibration
    if file is not None:
        file.copy(
            place / CALIBRATION_COPY,
            require_space=lambda size: store.require_space(layout, size),
            progress=progress,
        )


def _in_source_folder(fetched: Fetched) -> Fetched:
    """Return the digests as the files of a source lie when the model itself is another."""
    moved = {f"{store.SOURCE_FOLDER}/{name}": digest for name, digest in fetched.files.items()}
    return dataclasses.replace(fetched, files=moved)


def resolve(
    uri: str, *, source_root: Path, max_bytes: int, progress: Progress, access: Access | None = None
) -> Report:
    """Return a source's digest and size.

    Raises:
        JobError: the source is not there, is not safe, or is no model.
    """
    import tempfile

    with progress.step("resolve"), tempfile.TemporaryDirectory() as aside:
        scratch = Scratch(Path(aside) / store.SCRATCH, min(max_bytes, SCRATCH_BYTES))
        fetched = Fetcher(
            location=locate(uri, source_root, access=access, scratch=scratch, progress=progress),
            externals=isolated_externals,
            max_bytes=max_bytes,
            progress=progress,
            require_space=lambda size: _require_room(uri, size),
            aside=Path(aside),
        ).fetch()
    message = f"{fetched.model} and its data: {files.human(fetched.size)}"
    return Report(Reason.SUCCEEDED, message, sha256=fetched.sha256, size_bytes=fetched.size)


def _require_room(uri: str, size: int) -> None:
    """Refuse a model from elsewhere that ONNX could not hold in one file either."""
    if size > SCRATCH_BYTES:
        raise JobError(
            Reason.SOURCE_TOO_LARGE,
            f"{shown(uri)}: the model's file has {files.human(size)}, and ONNX allows "
            f"{files.human(SCRATCH_BYTES)}: save it with external data",
        )


def isolated_externals(path: Path) -> Sequence[External]:
    """Read a model's references to other files in a child process."""
    return isolated(_externals, path)


def _externals(path: Path) -> Sequence[External]:
    from engine_builder import onnx_model

    return onnx_model.externals(path)


def _store(
    request: PrepareRequest,
    layout: Layout,
    place: Path,
    *,
    progress: Progress,
    fetched: Fetched,
    facts: Facts,
) -> StoreManifest:
    report = _full_report(request, fetched=fetched, facts=facts, progress=progress)
    files.write_file(place / store.REPORT_FILE, json.dumps(report, indent=1, ensure_ascii=False).encode())
    draft = StoreManifest(
        engine=request.engine,
        key=request.key,
        source_sha256=fetched.sha256,
        prepare_version=PREPARE_VERSION,
        files=fetched.files,
        size_bytes=0,
        signature=facts.signature,
        sample_shapes=facts.sample_shapes,
    )
    return store.publish(layout, place, store.seal(place, draft))


def _full_report(
    request: PrepareRequest, *, fetched: Fetched, facts: Facts, progress: Progress
) -> dict[str, object]:
    return {
        "engine": request.engine,
        "key": request.key,
        "source": {
            "uri": shown(request.uri),
            "sha256": fetched.sha256,
            "model": fetched.model,
            "bytes": fetched.size,
            "files": dict(fetched.files),
        },
        "model": facts.contents,
        "signature": dataclasses.asdict(facts.signature),
        "samples": facts.samples,
        "precision": facts.precision,
        "notes": facts.notes,
        "seconds": progress.seconds,
        "versions": {**facts.versions, "engine_builder": __version__, "prepare": str(PREPARE_VERSION)},
    }


def _summary(fetched: Fetched, facts: Facts) -> str:
    answers = f"{facts.samples} reference samples" if facts.samples else "no reference samples"
    return "; ".join((f"prepared {fetched.model} ({files.human(fetched.size)}), {answers}", *facts.notes))
