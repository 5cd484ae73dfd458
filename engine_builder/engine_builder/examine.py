"""Everything that needs the ONNX libraries, in one call: check, load, run, sign.

Runs in a child process (see `isolation`), in the directory that becomes the store entry.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from engine_builder import store
from engine_builder.contract import Signature
from engine_builder.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

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


def examine(place: Path) -> Facts:
    """Check the model in `place`, and write its reference answers beside it.

    Raises:
        JobError: `InvalidModel`, `UnsupportedOperator`.
    """
    progress = Progress()
    with progress.step("import"):
        import onnx
        import onnxruntime

        from engine_builder import onnx_model, reference, reference_file, runtime
    path = place / store.MODEL_FILE
    with progress.step("check"):
        model = onnx_model.parse(path)
        onnx_model.signature(model)  # explains what the checker would refuse without a name
        onnx_model.check(path)
        inferred, note = onnx_model.infer_shapes(model)
        signature = onnx_model.signature(inferred)
    with progress.step("load"):
        session = runtime.open_session(path, model)
    with progress.step("reference"):
        answers = reference.answer(session)
        reference_file.save(place / store.REFERENCE_FILE, answers.samples)
    return Facts(
        signature=signature,
        contents=dataclasses.asdict(onnx_model.contents(model)),
        versions={"onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__},
        samples=len(answers.samples),
        sample_shapes=_shapes(answers.samples[0]) if answers.samples else {},
        notes=tuple(filter(None, (note, *answers.notes))),
        seconds=progress.seconds,
    )


def _shapes(sample: Sample) -> Mapping[str, tuple[int, ...]]:
    return {name: array.shape for name, array in sample.inputs.items()}
