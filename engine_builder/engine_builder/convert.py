"""The convert job: from a prepared engine to OpenVINO's own format, for CPUs, in the store."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

from engine_builder import __version__, files, origin, store
from engine_builder.compilers import openvino
from engine_builder.contract import OPENVINO_VERSION, Reason, Report, StoreManifest
from engine_builder.files import human
from engine_builder.isolation import Isolation
from engine_builder.volume import Layout

if TYPE_CHECKING:
    from engine_builder.compilers.openvino import Converted
    from engine_builder.progress import Progress

CONVERTING = Isolation(
    work="converting the model",
    crashed=(
        Reason.COMPILER_CRASHED,
        "OpenVINO crashed on the model ({signal}): export it again, or serve it with backend ONNXRuntime",
    ),
    out_of_memory=(
        Reason.OOM_KILLED,
        "converting the model ran out of memory: raise spec.prepare.resources of the ModelRepository",
    ),
)


@dataclasses.dataclass(frozen=True)
class ConvertRequest:
    """What a convert job was asked for; `prepared` is the entry of the store that it starts from."""

    repository: Path
    engine: str
    key: str
    prepared: str
    staging_uid: str


def convert_engine(request: ConvertRequest, progress: Progress) -> Report:
    """Make sure that the converted engine is in the store.

    Raises:
        JobError: the reason and what to do; nothing of the attempt is left then.
        OSError: the volume failed.
    """
    layout = Layout(request.repository)
    layout.make()
    standing = store.find(layout, engine=request.engine, key=request.key)
    if standing is not None:
        return store.report_of(standing, "the engine was in the store already")
    prepared = origin.find(layout, request.prepared)
    with store.staging(layout, request.staging_uid) as place:
        store.require_space(layout, prepared.size_bytes)
        model = layout.store / prepared.engine / store.MODEL_FILE
        converted = CONVERTING.run(openvino.convert, model, place / store.IR_FILE, prepared.signature)
        progress.seconds.update(converted.seconds)
        with progress.step("store"):
            manifest = _store(request, layout, place, prepared=prepared, converted=converted)
    version = converted.version.partition("-")[0]
    made = f"converted {prepared.engine} with OpenVINO {version} ({human(manifest.size_bytes)})"
    return store.report_of(manifest, made)


def _store(
    request: ConvertRequest, layout: Layout, place: Path, *, prepared: StoreManifest, converted: Converted
) -> StoreManifest:
    report = {
        "engine": request.engine,
        "key": request.key,
        "from": prepared.engine,
        "source": {"sha256": prepared.source_sha256},
        "signature": dataclasses.asdict(converted.signature),
        "seconds": dict(converted.seconds),
        "versions": {
            "openvino": converted.version,
            "engine_builder": __version__,
            "convert": str(OPENVINO_VERSION),
        },
    }
    text = json.dumps(report, indent=1, ensure_ascii=False)
    files.write_file(place / store.REPORT_FILE, text.encode())
    draft = dataclasses.replace(
        prepared,
        engine=request.engine,
        key=request.key,
        files=origin.share_answers(layout, prepared, place),
        size_bytes=0,
        signature=converted.signature,
        prepared=prepared.engine,
    )
    return store.publish(layout, place, store.seal(place, draft))
