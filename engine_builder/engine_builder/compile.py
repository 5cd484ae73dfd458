"""The compile job: from a prepared engine to a TensorRT plan for one target, in the store.

It holds a GPU from the pod's start to its end, so it does nothing else. Needs the standard library and
TensorRT, in an image that is not ours.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

from engine_builder import __version__, files, origin, store
from engine_builder.compilers import builder, profiles, timing_cache
from engine_builder.compilers.task import Task
from engine_builder.contract import (
    CompileOptions,
    Reason,
    Report,
    StoreManifest,
    Target,
)
from engine_builder.errors import JobError
from engine_builder.files import human
from engine_builder.isolation import Isolation
from engine_builder.volume import Layout

if TYPE_CHECKING:
    from engine_builder.compilers.task import Built
    from engine_builder.progress import Progress

STOP_SECONDS = 10.0
"""How long TensorRT may take to stop where the builder asks its monitor; then it is killed."""

COMPILING = Isolation(
    work="compiling the model",
    crashed=(
        Reason.COMPILER_CRASHED,
        (
            "TensorRT crashed while it compiled the model ({signal}): try another build.optimizationLevel, "
            "precision or release, and tell NVIDIA"
        ),
    ),
    out_of_memory=(
        Reason.OOM_KILLED,
        "compiling the model ran out of the pod's memory: raise spec.builds.resources of the TritonServer",
    ),
    timed_out=(
        Reason.DEADLINE_EXCEEDED,
        (
            "compiling the model took longer than spec.builds.timeoutSeconds of the TritonServer: raise it, "
            "or lower build.optimizationLevel"
        ),
    ),
    stop_seconds=STOP_SECONDS,
)


@dataclasses.dataclass(frozen=True)
class CompileRequest:
    """What a compile job was asked for; `prepared` is the entry of the store that it starts from."""

    repository: Path
    engine: str
    key: str
    prepared: str
    staging_uid: str
    options: CompileOptions
    target: Target
    compiler: str
    timing_cache: bool = True
    timeout_seconds: float | None = None


def compile_engine(request: CompileRequest, progress: Progress) -> Report:
    """Make sure that the compiled engine is in the store.

    Raises:
        JobError: the reason and what to do; nothing of the attempt is left then but timings.
        OSError: the volume failed.
    """
    layout = Layout(request.repository)
    layout.make()
    standing = store.find(layout, engine=request.engine, key=request.key)
    if standing is not None:
        return store.report_of(standing, "the engine was in the store already")
    prepared = origin.find(layout, request.prepared)
    _check_profiles(prepared, request.options)
    with store.staging(layout, request.staging_uid) as place:
        store.require_space(layout, prepared.size_bytes)
        built = _build(request, layout, place, prepared)
        progress.seconds.update(built.seconds)
        with progress.step("store"):
            manifest = _store(request, layout, place, prepared=prepared, built=built, progress=progress)
    report = store.report_of(manifest, _summary(request, built))
    return dataclasses.replace(report, compiler_seconds=built.compiler_seconds)


def _check_profiles(prepared: StoreManifest, options: CompileOptions) -> None:
    """Find what is wrong with the profiles before TensorRT is started."""
    assumed = profiles.assumed_shape_inputs(prepared.signature, options)
    profiles.resolve(prepared.signature, options, shape_inputs=assumed)


def _build(request: CompileRequest, layout: Layout, place: Path, prepared: StoreManifest) -> Built:
    task = Task(
        repository=layout.root,
        model=layout.store / prepared.engine / store.MODEL_FILE,
        place=place,
        signature=prepared.signature,
        options=request.options,
        target=request.target,
        compiler=request.compiler,
        timing_cache=request.timing_cache,
    )
    isolation = dataclasses.replace(COMPILING, timeout_seconds=request.timeout_seconds)
    try:
        return isolation.run(builder.build, task)
    except JobError as error:
        if error.reason is Reason.COMPILER_CRASHED:
            timing_cache.discard_all(layout, target=request.target)
        raise


def _store(
    request: CompileRequest,
    layout: Layout,
    place: Path,
    *,
    prepared: StoreManifest,
    built: Built,
    progress: Progress,
) -> StoreManifest:
    known = {store.PLAN_FILE: built.plan_sha256, **origin.share_answers(layout, prepared, place)}
    report = json.dumps(_full_report(request, prepared, built, progress), indent=1, ensure_ascii=False)
    files.write_file(place / store.REPORT_FILE, report.encode())
    draft = dataclasses.replace(
        prepared,
        engine=request.engine,
        key=request.key,
        files=known,
        size_bytes=0,
        signature=built.signature,
        prepared=prepared.engine,
        tensorrt=built.version,
        target=request.target,
    )
    return store.publish(layout, place, store.seal(place, draft))


def _full_report(
    request: CompileRequest, prepared: StoreManifest, built: Built, progress: Progress
) -> dict[str, object]:
    return {
        "engine": request.engine,
        "key": request.key,
        "from": prepared.engine,
        "source": {"sha256": prepared.source_sha256},
        "compiler": {"module": built.compiler, "version": built.version},
        "target": dataclasses.asdict(request.target),
        "gpu": dataclasses.asdict(built.gpu) if built.gpu else None,
        "options": dataclasses.asdict(request.options),
        "profiles": [[dataclasses.asdict(given) for given in profile] for profile in built.profiles],
        "signature": dataclasses.asdict(built.signature),
        "plan": {"bytes": built.plan_bytes, "sha256": built.plan_sha256},
        "workspace_bytes": built.workspace_bytes,
        "device_memory_bytes": built.device_memory_bytes,
        "layers": dict(built.layers),
        "timing_cache": built.timing_cache,
        "notes": built.notes,
        "warnings": built.warnings,
        "seconds": progress.seconds,
        "compiler_seconds": built.compiler_seconds,
        "versions": {built.compiler: built.version, "engine_builder": __version__},
    }


def _summary(request: CompileRequest, built: Built) -> str:
    made = (
        f"compiled {request.prepared} for {request.target} with {built.compiler} {built.version} "
        f"({human(built.plan_bytes)})"
    )
    return "; ".join((made, *built.notes))
