"""Everything that needs the ONNX libraries, in one call: check, load, run, sign.

Runs in a child process (see `isolation`), in the directory that becomes the store entry.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from engine_builder import store
from engine_builder.contract import Reason, Signature
from engine_builder.errors import JobError
from engine_builder.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Facts:
    """What was found out about a model."""

    signature: Signature
    contents: Mapping[str, object]
    versions: Mapping[str, str]
    samples: int
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
        onnx_model.check(path)
        inferred, note = onnx_model.infer_shapes(model)
        signature = onnx_model.signature(inferred)
    with progress.step("load"):
        session = runtime.open_session(path, model)
    with progress.step("reference"):
        answers = reference.answer(session)
        reference_file.save(place / store.REFERENCE_FILE, answers.samples)
    ranked = {o.name for o in signature.outputs if onnx_model.has_rank(inferred, o.name)}
    shown = {n: a.shape for s in answers.samples[:1] for n, a in s.outputs.items()}
    return Facts(
        signature=_complete(signature, ranked, shown),
        contents=dataclasses.asdict(onnx_model.contents(model)),
        versions={"onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__},
        samples=len(answers.samples),
        notes=tuple(filter(None, (note, *answers.notes))),
        seconds=progress.seconds,
    )


def _complete(signature: Signature, ranked: set[str], shown: Mapping[str, tuple[int, ...]]) -> Signature:
    """Give outputs of unknown rank the rank that the reference answers have."""
    outputs = []
    for output in signature.outputs:
        if output.name in ranked:
            outputs.append(output)
        elif output.name in shown:
            outputs.append(dataclasses.replace(output, shape=(-1,) * len(shown[output.name])))
        else:
            raise JobError(
                Reason.INVALID_MODEL,
                f"output {output.name!r} has no shape and no generated input shows one: "
                "export the model with its rank at least",
            )
    return dataclasses.replace(signature, outputs=tuple(outputs))
