"""Calibration data for INT8: the user's own from an .npz file, or made up if asked for in so many words."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from engine_builder import reference, samples_file
from engine_builder.contract import Reason
from engine_builder.errors import JobError
from engine_builder.precision import CALIBRATION_COPY, CALIBRATION_FIELD, Conversion
from engine_builder.samples_file import Purpose

if TYPE_CHECKING:
    from pathlib import Path

    import onnxruntime

    from engine_builder.reference import Reference
    from engine_builder.reference_file import Arrays

MOST_SAMPLES = 1024
GENERATED_SAMPLES = 16

_PURPOSE = Purpose(CALIBRATION_FIELD, Reason.INVALID_CALIBRATION, MOST_SAMPLES)


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Inputs to calibrate on; `own` tells that they are the user's."""

    samples: tuple[Arrays, ...]
    own: bool

    @property
    def note(self) -> str:
        """Return what a reader of the report must know of them."""
        if self.own:
            return f"calibrated on {len(self.samples)} samples"
        return (
            f"calibrated on {len(self.samples)} made-up samples, as asked: answers to real requests may be "
            "worse than those compared here"
        )


def read(
    place: Path,
    session: onnxruntime.InferenceSession,
    wanted: Conversion,
    *,
    made: Reference,
    batched: bool,
) -> Calibration:
    """Return what a model is to be calibrated on; `made` are the inputs that were made up for it.

    Raises:
        JobError: `InvalidCalibration`: there is none, or it does not fit the model.
    """
    if wanted.calibration is not None:
        own = samples_file.load(
            place / CALIBRATION_COPY,
            reference.inputs_of(session),
            batched=batched,
            most_bytes=wanted.calibration.max_bytes,
            purpose=_PURPOSE,
        )
        return Calibration(tuple(own), own=True)
    if not wanted.generated:
        raise JobError(
            Reason.INVALID_CALIBRATION,
            "build.precision INT8 needs calibration data: name an .npz file of real inputs in "
            f"{CALIBRATION_FIELD}.uri, or set {CALIBRATION_FIELD}.generated to calibrate on made-up numbers",
        )
    if not made.samples:
        raise JobError(
            Reason.INVALID_CALIBRATION,
            f"{CALIBRATION_FIELD}.generated: {'; '.join(made.notes)}: name a file of real inputs in "
            f"{CALIBRATION_FIELD}.uri",
        )
    return Calibration(tuple(reference.more_like(session, made, count=GENERATED_SAMPLES)), own=False)
