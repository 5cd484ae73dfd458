"""The reference job: the user's own samples, and what the source of an engine answers to them.

It makes an entry of the store, as `prepare` does: complete with its MANIFEST or not there at all.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from engine_builder import files, store
from engine_builder.contract import PREPARE_VERSION, Reason, Report, StoreManifest
from engine_builder.errors import JobError
from engine_builder.fetch import SingleFile
from engine_builder.isolation import isolated
from engine_builder.remote import Access
from engine_builder.volume import Layout

if TYPE_CHECKING:
    from engine_builder.progress import Progress

MAX_BYTES = 256 << 20
"""Largest file of samples, packed or unpacked, unless told otherwise."""
_COPY = "samples.npz"
_FIELD = "check.samples"


@dataclasses.dataclass(frozen=True)
class ReferenceRequest:
    """What a reference job was asked for: an entry of the store for the samples of an engine."""

    repository: Path
    entry: str
    key: str
    engine: str
    uri: str
    staging_uid: str
    sha256: str | None = None
    source_root: Path = Path("/source")
    max_bytes: int = MAX_BYTES
    access: Access = dataclasses.field(default_factory=Access)


@dataclasses.dataclass(frozen=True)
class Answered:
    """How many of the user's samples the model has answered, and what a reader should know of them."""

    given: int
    answered: int
    notes: tuple[str, ...] = ()


def make_reference(request: ReferenceRequest, progress: Progress) -> Report:
    """Make sure that the store has the user's samples with the answers of an engine's source.

    Raises:
        JobError: the reason and what to do; nothing of the attempt is left then.
        OSError: the volume failed.
    """
    layout = Layout(request.repository)
    layout.make()
    standing = store.find(layout, engine=request.entry, key=request.key)
    if standing is not None:
        return _report(standing, "the samples were in the store already")
    engine = store.read_manifest(layout, request.engine)
    if engine is None:
        message = f"store/{request.engine} is not there; will be tried again"
        raise JobError(Reason.VOLUME_ERROR, message)
    with store.staging(layout, request.staging_uid) as place:
        with progress.step("fetch"):
            digest = _fetch(request, layout, place, progress)
        with progress.step("reference"):
            entry = layout.store / request.engine
            batched = engine.signature.has_batch
            found = isolated(answer, place, entry, batched=batched, most_bytes=request.max_bytes)
        with progress.step("store"):
            files.delete(place / _COPY)
            manifest = _store(request, layout, place, engine=engine, digest=digest)
    return _report(manifest, _summary(found))


def _fetch(request: ReferenceRequest, layout: Layout, place: Path, progress: Progress) -> str:
    file = SingleFile(
        uri=request.uri,
        root=request.source_root,
        field=_FIELD,
        max_bytes=request.max_bytes,
        sha256=request.sha256,
        access=request.access,
    )
    return file.copy(
        place / _COPY, require_space=lambda size: store.require_space(layout, size), progress=progress
    )


def answer(place: Path, engine: Path, *, batched: bool, most_bytes: int) -> Answered:
    """Run the samples in `place` through the source of an engine; writes the answers beside them.

    Samples and answers have the types of the engine itself.

    Raises:
        JobError: `InvalidSamples`.
    """
    from engine_builder import onnx_model, reference, reference_file, runtime, samples_file

    served = engine / store.MODEL_FILE
    source = engine / store.SOURCE_FOLDER / store.MODEL_FILE
    session = runtime.open_session(served, onnx_model.parse(served))
    if kind := reference.not_exchanged(session):
        raise JobError(
            Reason.INVALID_SAMPLES,
            f"{_FIELD}: this model cannot be asked, as onnxruntime exchanges no {kind} with Python: "
            f"take spec.{_FIELD} out",
        )
    inputs, kinds = reference.inputs_of(session), reference.kinds_of(session)
    if source.exists():
        session = runtime.open_session(source, onnx_model.parse(source))
    given = samples_file.load(place / _COPY, inputs, batched=batched, most_bytes=most_bytes)
    answered: list[reference_file.Sample] = []
    try:
        for sample in reference.run(session, given, like=kinds):
            answered.append(sample)  # noqa: PERF402 - how many there were tells which one failed
    except MemoryError:
        raise
    except Exception as error:  # onnxruntime's classes share no base of their own
        raise JobError(
            Reason.INVALID_SAMPLES,
            f"{_FIELD}: the model does not take sample {len(answered)}: {runtime.clean(str(error))[:1000]}",
        ) from error
    reference_file.save(place / store.REFERENCE_FILE, answered)
    return Answered(len(given), len(answered), tuple(reference.not_numbers(answered)))


def _store(
    request: ReferenceRequest, layout: Layout, place: Path, *, engine: StoreManifest, digest: str
) -> StoreManifest:
    draft = StoreManifest(
        engine=request.entry,
        key=request.key,
        source_sha256=digest,
        prepare_version=PREPARE_VERSION,
        files={},
        size_bytes=0,
        signature=engine.signature,
    )
    return store.publish(layout, place, store.seal(place, draft))


def _report(manifest: StoreManifest, message: str) -> Report:
    return dataclasses.replace(store.report_of(manifest, message), signature=None)  # samples have none


def _summary(found: Answered) -> str:
    lines = [f"{found.answered} of {found.given} samples answered"]
    if found.answered < found.given:
        lines.append("the others would take too long, and are left out")
    if found.notes:
        lines.append(f"NaN or infinity in {', '.join(found.notes)}")
    return "; ".join(lines)
