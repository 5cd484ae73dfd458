"""One model at one precision: prepared as a job would, then asked what the wheel asks.

Whatever the model does to the libraries it does in child processes of the builder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import time
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto

from corpus.wheel import Arrays, WheelModel
from engine_builder import onnx_model, onnx_precision, prepare, runtime, store
from engine_builder.comparison import Comparison, Tally, WrongAnswerError, worst_of
from engine_builder.contract import Precision, Reason
from engine_builder.errors import JobError
from engine_builder.fetch import SingleFile
from engine_builder.isolation import isolated
from engine_builder.precision import CALIBRATION_FIELD, CALIBRATION_MAX_BYTES, Conversion
from engine_builder.progress import Progress

PRECISIONS = (Precision.FP32, Precision.FP16, Precision.INT8)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a case.

    `entry` is the directory of the prepared model, while its repository is there; `cosine` the lowest one
    between its answers and those of the wheel: None where the wheel ships none that can be compared.
    """

    model: str
    precision: str
    reason: str
    message: str
    seconds: float
    entry: Path | None = None
    cosine: float | None = None

    @property
    def column(self) -> str:
        """Return where it is counted."""
        return self.precision


def precisions(model: WheelModel) -> tuple[Precision, ...]:
    """Return what a model is prepared at: INT8 only where there are FP32 weights."""
    weights = isolated(_weights, model.path)
    return PRECISIONS if weights else PRECISIONS[:2]


def _weights(path: Path) -> int:
    return onnx_precision.brought(onnx_model.parse(path)).weights.get(TensorProto.FLOAT, 0)


def run(model: WheelModel, precision: Precision, *, root: Path, number: int) -> Outcome:
    """Prepare a model in a repository below `root`, and compare its answers with the wheel's."""
    began = time.monotonic()
    engine = f"onnxruntime-{number:016x}"
    request = prepare.PrepareRequest(
        repository=root,
        engine=engine,
        key=f"{number:064x}",
        uri=str(model.path),
        staging_uid="corpus",
        conversion=_conversion(model, precision, root),
    )
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # the children tell their steps
            report = prepare.prepare(request, Progress(quiet=True))
        reason, message = report.reason.value, report.message
        entry = root / "store" / engine
        cosine = _cosine(model, entry)
    except JobError as error:
        reason, message, entry, cosine = error.reason.value, error.message, None, None
    seconds = time.monotonic() - began
    return Outcome(model.name, precision.value, reason, message, seconds, entry=entry, cosine=cosine)


def _conversion(model: WheelModel, precision: Precision, root: Path) -> Conversion:
    """Calibrate on what the wheel asks, as a user does on real inputs."""
    if precision is not Precision.INT8:
        return Conversion(precision)
    inputs = model.inputs()
    if inputs is None:
        return Conversion(precision, generated=True)
    path = root / "calibration.npz"
    np.savez(path, **inputs)
    file = SingleFile(str(path), Path("/"), field=CALIBRATION_FIELD, max_bytes=CALIBRATION_MAX_BYTES)
    return Conversion(precision, calibration=file)


def _cosine(model: WheelModel, entry: Path) -> float | None:
    inputs, expected = model.inputs(), model.answers()
    if inputs is None or expected is None:
        return None
    return isolated(_compare, entry / store.MODEL_FILE, inputs, expected).cosine


def _compare(path: Path, inputs: Arrays, expected: Arrays) -> Comparison:
    session = runtime.open_session(path, onnx_model.parse(path))
    found: dict[str, Any] = dict(zip(expected, session.run(list(expected), inputs), strict=True))
    tally = Tally()
    try:
        for name, array in expected.items():
            tally.add(name, _text(array), _text(np.asarray(found[name])))
    except WrongAnswerError as error:
        raise JobError(Reason.WRONG_ANSWERS, f"against the wheel: {error}") from error
    return worst_of(tally.figures().values())


def _text(array: Any) -> Any:
    if array.dtype.kind != "O":
        return array
    texts = [each.decode() if isinstance(each, bytes) else str(each) for each in array.ravel()]
    return np.array(texts, np.str_).reshape(array.shape)
