"""What may be asked of a prepared model's numbers: its precision, and how it is calibrated."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from engine_builder.contract import Precision

if TYPE_CHECKING:
    from engine_builder.fetch import SingleFile

MINIMUM_COSINE = 0.99
"""Lowest cosine between a converted model's answers and its source's, unless told otherwise."""
CALIBRATION_FIELD = "build.calibration"
CALIBRATION_MAX_BYTES = 1 << 30
"""Largest file of calibration data, packed or unpacked."""
CALIBRATION_COPY = ".calibration.npz"
"""Name of the user's file in the staging directory, while it is needed there."""


UNCONVERTED = frozenset({Precision.FP32, Precision.TF32})
FOR_GPUS = frozenset({Precision.BF16, Precision.FP8})
"""Precisions for which onnxruntime lacks operators on the CPU."""


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What is asked: inputs and outputs stay FP32 with `keep_io`, and the least cosine that is good.

    INT8 is calibrated on the `calibration` file, or on numbers that are made up if `generated`.
    """

    precision: Precision = Precision.FP32
    keep_io: bool = True
    minimum_cosine: float = MINIMUM_COSINE
    calibration: SingleFile | None = None
    generated: bool = False


AS_IT_IS = Conversion()
