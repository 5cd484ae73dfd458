"""A model is given another precision, and its answers are compared with those of the source.

Runs in the child process of `examine`, in the directory that becomes the store entry.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import resource
import tempfile
from typing import TYPE_CHECKING

from engine_builder import calibration, files, fp16, int8, onnx_model, reference, rewrite, runtime, store
from engine_builder.calibration import Calibration
from engine_builder.comparison import Comparison, Tally, WrongAnswerError, worst_of
from engine_builder.contract import Precision, Reason, Signature
from engine_builder.errors import JobError
from engine_builder.onnx_precision import refusal
from engine_builder.precision import CALIBRATION_COPY, Conversion
from engine_builder.reference_file import Sample

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import onnxruntime

    from engine_builder.comparison import Array
    from engine_builder.progress import Progress
    from engine_builder.reference import Kinds, Reference
    from engine_builder.reference_file import Arrays

_WORK = ".work"
_ADVICE = {
    Precision.FP16: "keep FP32, or export the model in FP16 from its framework with the layers that suffer "
    "left in FP32",
    Precision.INT8: "calibrate on data like real requests, or set FP16",
}


@dataclasses.dataclass(frozen=True)
class Source:
    """The model as it came: a session of it, its signature, and its answers to made-up inputs."""

    session: onnxruntime.InferenceSession
    signature: Signature
    answers: Reference


@dataclasses.dataclass(frozen=True)
class Converted:
    """What became of it. `samples` hold the source's answers, in the types of the converted model."""

    signature: Signature
    samples: tuple[Sample, ...]
    figures: Mapping[str, object]
    notes: tuple[str, ...]


def convert(place: Path, source: Source, wanted: Conversion, progress: Progress) -> Converted:
    """Put the wanted precision into the model in `place`; it moves into a folder of its own there.

    Raises:
        JobError: `UnsupportedPrecision`, `InvalidCalibration`, `AccuracyLost`.
    """
    data = _calibration(place, source, wanted)
    original = _move_aside(place)
    with _work(place) as work:
        with progress.step("convert"):
            note = _write(original, place / store.MODEL_FILE, wanted, data=data, work=work)
        rewrite.open_up(place)
        with progress.step("compare"):
            session, found = _open(place / store.MODEL_FILE, wanted)
            signature = _signature(source.signature, found, wanted)
            kinds = reference.kinds_of(session)
            samples = _samples(source, kinds, data)
            asked = [session, *_rehearsals(original, work, wanted)]
            outputs = _compared(asked, samples, wanted)
    return Converted(
        signature=signature,
        samples=tuple(Sample(s.inputs, reference.as_kinds(s.outputs, kinds.outputs)) for s in samples),
        figures=_figures(outputs, data),
        notes=(note, *_notes(wanted, outputs)),
    )


def _calibration(place: Path, source: Source, wanted: Conversion) -> Calibration | None:
    if wanted.precision is not Precision.INT8:
        return None
    return calibration.read(
        place, source.session, wanted, made=source.answers, batched=source.signature.has_batch
    )


def _move_aside(place: Path) -> Path:
    """Move the source into its own folder of the entry, with its external data; returns its new path."""
    found = [path for path in place.iterdir() if path.name != CALIBRATION_COPY]
    folder = place / store.SOURCE_FOLDER
    files.make_directory(folder)
    for path in found:
        path.rename(folder / path.name)
    return folder / store.MODEL_FILE


@contextlib.contextmanager
def _work(place: Path) -> Iterator[Path]:
    """Yield a directory on the volume for what lies between; the libraries' own files go there too."""
    work, before = place / _WORK, tempfile.tempdir
    files.make_directory(work)
    tempfile.tempdir = str(work)
    try:
        yield work
    finally:
        tempfile.tempdir = before
        files.delete(work)


def _write(source: Path, target: Path, wanted: Conversion, *, data: Calibration | None, work: Path) -> str:
    if data is None:
        return fp16.to_fp16(source, target, keep_io=wanted.keep_io)
    int8.to_int8(source, target, samples=data.samples, work=work)
    return data.note


def _open(path: Path, wanted: Conversion) -> tuple[onnxruntime.InferenceSession, Signature]:
    model = onnx_model.parse(path)
    try:
        return runtime.open_session(path, model), onnx_model.signature(model)
    except JobError as error:
        advice = "keep FP32, or export it in this precision"
        raise refusal(
            wanted.precision, f"the converted model is refused: {error.message}: {advice}"
        ) from error


def _signature(source: Signature, found: Signature, wanted: Conversion) -> Signature:
    """Return the source's signature with the types that were found: shapes are told as they were."""
    sides = ((source.inputs, found.inputs), (source.outputs, found.outputs))
    if any([t.name for t in before] != [t.name for t in after] for before, after in sides):
        raise refusal(wanted.precision, "the converted model has other inputs or outputs: keep FP32")
    inputs, outputs = (
        tuple(dataclasses.replace(old, datatype=new.datatype) for old, new in zip(*side, strict=True))
        for side in sides
    )
    return Signature(inputs=inputs, outputs=outputs)


def _samples(source: Source, kinds: Kinds, data: Calibration | None) -> tuple[Sample, ...]:
    """Return inputs as the converted model takes them, with the source's own answers to them.

    They are real ones where the user gave some to calibrate on.
    """
    given: Iterable[Arrays] = (sample.inputs for sample in source.answers.samples)
    if data is not None and data.own:
        given = data.samples[: reference.SAMPLES]
    return tuple(reference.run(source.session, (reference.as_kinds(each, kinds.inputs) for each in given)))


def _rehearsals(source: Path, work: Path, wanted: Conversion) -> Iterator[onnxruntime.InferenceSession]:
    """Yield what shows a loss that the converted model doesn't show on a CPU."""
    if wanted.precision is Precision.FP16:
        path = work / "rehearsal.onnx"
        fp16.rehearse(source, path)
        yield _open(path, wanted)[0]


def _compared(
    sessions: Sequence[onnxruntime.InferenceSession], samples: Sequence[Sample], wanted: Conversion
) -> Mapping[str, Comparison]:
    """Ask the converted model, and return the figures of each output.

    Raises:
        JobError: `AccuracyLost`.
    """
    tally, what = Tally(), wanted.precision
    try:
        for session, expected in itertools.product(sessions, samples):
            answers = next(reference.run(session, [expected.inputs])).outputs
            for name, array in expected.outputs.items():
                tally.add(name, *(_text(a) for a in (array, answers[name].astype(array.dtype, copy=False))))
    except WrongAnswerError as error:
        raise JobError(Reason.ACCURACY_LOST, f"{what.value}: {error}: {_ADVICE[what]}") from error
    figures = tally.figures()
    lost = {name: each for name, each in figures.items() if each.cosine < wanted.minimum_cosine}
    if lost:
        name = min(lost, key=lambda name: lost[name].cosine)
        raise JobError(
            Reason.ACCURACY_LOST,
            f"{what.value}: output {name!r} has {_told(lost[name])}, below check.minimumCosine "
            f"{wanted.minimum_cosine:g} (so have {len(lost)} of {len(figures)} outputs): {_ADVICE[what]}, "
            "or lower check.minimumCosine",
        )
    return figures


def _text(array: Array) -> Array:
    return array.astype("U") if array.dtype.kind == "O" else array


def _told(comparison: Comparison) -> str:
    return f"lowest cosine {comparison.cosine:.6f}, largest error {comparison.max_error:.3g}"


def _figures(outputs: Mapping[str, Comparison], data: Calibration | None) -> Mapping[str, object]:
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    figures: dict[str, object] = {
        "outputs": {name: dataclasses.asdict(each) for name, each in outputs.items()},
        "peak_memory_bytes": memory,
    }
    if data is not None:
        figures["calibration"] = {"samples": len(data.samples), "generated": not data.own}
    return figures


def _notes(wanted: Conversion, outputs: Mapping[str, Comparison]) -> Iterator[str]:
    if outputs:
        yield f"{wanted.precision.value} against the source: {_told(worst_of(outputs.values()))}"
    else:
        yield f"{wanted.precision.value}: what it loses was not measured, as no input is known that works"
    if not wanted.keep_io and wanted.precision is Precision.FP16:
        yield "inputs and outputs are FP16"
