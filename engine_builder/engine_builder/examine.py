"""Everything that needs the ONNX libraries, in one call: check, load, run, sign.

Runs in a child process (see `isolation`), in the directory that becomes the store entry.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from engine_builder import store
from engine_builder.contract import Precision, Signature
from engine_builder.errors import JobError
from engine_builder.precision import AS_IT_IS, FOR_GPUS, UNCONVERTED, Conversion
from engine_builder.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import onnx
    import onnxruntime

    from engine_builder.reference_file import Sample


@dataclasses.dataclass(frozen=True)
class Facts:
    """What was found out about a model."""

    signature: Signature
    contents: Mapping[str, object]
    versions: Mapping[str, str]
    samples: int
    sample_shapes: Mapping[str, tuple[int, ...]]
    notes: tuple[str, ...]
    seconds: Mapping[str, float]
    precision: Mapping[str, object] = dataclasses.field(default_factory=dict)
    """What was asked and what came of it; empty where the model was to stay as it is."""

    @property
    def converted(self) -> bool:
        """Tell whether the model is another than the source, which lies in a folder of its own then."""
        return "outputs" in self.precision


def examine(place: Path, wanted: Conversion = AS_IT_IS) -> Facts:
    """Check the model in `place`, convert it if that is wanted, and write the source's answers beside it.

    Raises:
        JobError: `InvalidModel`, `UnsupportedOperator`, and those of a conversion.
    """
    progress = Progress()
    with progress.step("import"):
        import onnx
        import onnxruntime

        from engine_builder import conversion, onnx_model, onnx_precision, reference, reference_file
    path = place / store.MODEL_FILE
    with progress.step("check"):
        model = onnx_model.parse(path)
        onnx_model.signature(model)  # explains what the checker would refuse without a name
        onnx_model.check(path)
        inferred, note = onnx_model.infer_shapes(model)
        signature = onnx_model.signature(inferred)
    decision = onnx_precision.decide(wanted.precision, onnx_precision.brought(inferred))
    with progress.step("load"):
        session, missing = _open(path, model, wanted.precision)
    with progress.step("reference"):
        answers = reference.answer(session) if session is not None else reference.Reference((), (missing,))
    notes, samples, figures = [*answers.notes], answers.samples, _asked(wanted)
    if decision.converts and session is not None:
        source = conversion.Source(session, signature, answers)
        converted = conversion.convert(place, source, wanted, progress)
        if wanted.calibration is not None:
            notes = []  # real inputs took the place of made-up ones
        signature, samples = converted.signature, converted.samples
        figures |= converted.figures
        notes += converted.notes
    reference_file.save(place / store.REFERENCE_FILE, samples)
    return Facts(
        signature=signature,
        contents=dataclasses.asdict(onnx_model.contents(model)),
        versions={"onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__},
        samples=len(samples),
        sample_shapes=_shapes(samples[0]) if samples else {},
        notes=tuple(filter(None, (note, decision.note, *notes))),
        seconds=progress.seconds,
        precision=figures,
    )


def _asked(wanted: Conversion) -> dict[str, object]:
    return {} if wanted.precision in UNCONVERTED else {"asked": wanted.precision.value}


def _open(
    path: Path, model: onnx.ModelProto, precision: Precision
) -> tuple[onnxruntime.InferenceSession | None, str]:
    """Open the model; one in a precision that is for GPUs need not run here: then say why it doesn't."""
    from engine_builder import runtime

    try:
        return runtime.open_session(path, model), ""
    except JobError as error:
        if precision not in FOR_GPUS:
            raise
        return None, f"no reference answers, so its answers are not checked: {error.message}"


def _shapes(sample: Sample) -> Mapping[str, tuple[int, ...]]:
    return {name: array.shape for name, array in sample.inputs.items()}
