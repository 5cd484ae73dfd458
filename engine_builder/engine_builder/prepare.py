"""The prepare job: from a source to an engine in the store. And resolve: only its digest."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

from engine_builder import __version__, files, store
from engine_builder.contract import PREPARE_VERSION, Reason, Report, StoreManifest
from engine_builder.examine import Facts, examine
from engine_builder.fetch import External, Fetched, Fetcher, locate
from engine_builder.isolation import isolated
from engine_builder.volume import Layout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine_builder.progress import Progress

MAX_BYTES = 64 << 30
"""Largest source unless told otherwise."""


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
        return _report(standing, "the engine was in the store already")
    with store.staging(layout, request.staging_uid) as place:
        with progress.step("fetch"):
            fetched = _fetch(request, layout, place, progress)
        facts = isolated(examine, place)
        progress.seconds.update(facts.seconds)
        with progress.step("store"):
            manifest = _store(request, layout, place, progress=progress, fetched=fetched, facts=facts)
    return _report(manifest, _summary(fetched, facts))


def _fetch(request: PrepareRequest, layout: Layout, place: Path, progress: Progress) -> Fetched:
    return Fetcher(
        location=locate(request.uri, request.source_root),
        externals=isolated_externals,
        max_bytes=request.max_bytes,
        progress=progress,
        into=place,
        require_space=lambda size: store.require_space(layout, size),
        expected=request.sha256,
    ).fetch()


def resolve(uri: str, *, source_root: Path, max_bytes: int, progress: Progress) -> Report:
    """Return a source's digest and size.

    Raises:
        JobError: the source is not there, is not safe, or is no model.
    """
    fetcher = Fetcher(
        location=locate(uri, source_root),
        externals=isolated_externals,
        max_bytes=max_bytes,
        progress=progress,
    )
    with progress.step("resolve"):
        fetched = fetcher.fetch()
    message = f"{fetched.model} and its data: {files.human(fetched.size)}"
    return Report(Reason.SUCCEEDED, message, sha256=fetched.sha256, size_bytes=fetched.size)


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
            "uri": request.uri,
            "sha256": fetched.sha256,
            "model": fetched.model,
            "bytes": fetched.size,
            "files": dict(fetched.files),
        },
        "model": facts.contents,
        "signature": dataclasses.asdict(facts.signature),
        "samples": facts.samples,
        "notes": facts.notes,
        "seconds": progress.seconds,
        "versions": {**facts.versions, "engine_builder": __version__, "prepare": str(PREPARE_VERSION)},
    }


def _report(manifest: StoreManifest, message: str) -> Report:
    return Report(
        Reason.SUCCEEDED,
        message,
        engine=manifest.engine,
        sha256=manifest.source_sha256,
        size_bytes=manifest.size_bytes,
        signature=manifest.signature,
    )


def _summary(fetched: Fetched, facts: Facts) -> str:
    answers = f"{facts.samples} reference samples" if facts.samples else "no reference samples"
    return "; ".join((f"prepared {fetched.model} ({files.human(fetched.size)}), {answers}", *facts.notes))
