"""What may be asked of a prepared model's numbers: its precision, and how it is calibrated."""

from __future__ import annotations

import dataclasses
import enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine_builder.fetch import SingleFile

MINIMUM_COSINE = 0.99
"""Lowest cosine between a converted model's answers and its source's, unless told otherwise."""
CALIBRATION_FIELD = "build.calibration"
CALIBRATION_MAX_BYTES = 1 << 30
"""Largest file of calibration data, packed or unpacked."""
CALIBRATION_COPY = ".calibration.npz"
"""Name of the user's file in the staging directory, while it is needed there."""


class Precision(str, enum.Enum):
    """Precision of the numbers that a model computes with.

    FP32 and TF32 leave the ONNX as it is (TF32 is the compiler's choice), FP16 and INT8 are put into
    it, BF16 and FP8 must be in it already.
    """

    FP32 = "FP32"
    TF32 = "TF32"
    FP16 = "FP16"
    BF16 = "BF16"
    INT8 = "INT8"
    FP8 = "FP8"


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
