"""INT8 put into an ONNX by onnxruntime's quantiser: static, Q/DQ, as TensorRT's parser takes it.

Symmetric and signed, weights by channel, biases left alone, and only operators that gain from it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx
import onnxruntime
from onnx import TensorProto

from engine_builder import onnx_model, rewrite
from engine_builder.contract import Precision, Reason
from engine_builder.errors import JobError
from engine_builder.fp16 import quiet
from engine_builder.onnx_precision import refusal
from engine_builder.precision import CALIBRATION_FIELD
from engine_builder.runtime import clean

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from engine_builder.reference_file import Arrays

_LOWEST_OPSET = 13
"""QuantizeLinear by channel."""
_WEIGHTED = ("Conv", "Gemm", "MatMul")
_OPERATORS = (*_WEIGHTED, "Add", "MaxPool", "GlobalAveragePool")
_OPTIONS = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "QuantizeBias": False,
    "MatMulConstBOnly": True,
}


class _Reader:
    """Calibration data as the quantiser asks for it; `given` counts what it took."""

    def __init__(self, samples: Sequence[Arrays]) -> None:
        self._samples, self.given = samples, 0

    def get_next(self) -> dict[str, Any] | None:
        if self.given == len(self._samples):
            return None
        self.given += 1
        return dict(self._samples[self.given - 1])


def to_int8(source: Path, target: Path, *, samples: Sequence[Arrays], work: Path) -> None:
    """Write the model at `source` with Q/DQ to `target`; `work` is a directory for what lies between.

    Raises:
        JobError: `UnsupportedPrecision` for a model that has nothing to quantise, `InvalidCalibration`
            for data that it does not take.
    """
    large = rewrite.is_large(source)
    folded = _folded(_at_opset(rewrite.load(source)), work, large=large)
    if not _has_weights(folded):
        message = f"the model has no {', '.join(_WEIGHTED)} with constant FP32 weights: set FP16 or FP32"
        raise refusal(Precision.INT8, message)
    reader = _Reader(samples)
    try:
        _quantize(folded, target, reader, large=large)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # onnxruntime's classes share no base of their own
        raise _explain(error, reader, len(samples)) from error


def _at_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    try:
        return rewrite.at_opset(model, _LOWEST_OPSET)
    except (RuntimeError, onnx.version_converter.ConvertError) as error:
        message = (
            f"it needs opset {_LOWEST_OPSET} and the model cannot be brought there ({clean(str(error))})"
        )
        raise refusal(Precision.INT8, f"{message[:600]}: export it with opset {_LOWEST_OPSET}") from error


def _folded(model: onnx.ModelProto, work: Path, *, large: bool) -> Path:
    """Compute what is constant, and merge what belongs together: weights stand as they are used then."""
    plain, folded = work / "plain.onnx", work / "folded.onnx"
    rewrite.save(model, plain, large=large)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folded)
    if large:
        entry = "session.optimized_model_external_initializers_"
        options.add_session_config_entry(f"{entry}file_name", f"{folded.name}.data")
        options.add_session_config_entry(f"{entry}min_size_in_bytes", "1024")
    try:
        onnxruntime.InferenceSession(str(plain), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's classes share no base of their own
        message = f"the model cannot be simplified ({clean(str(error))[:500]}): set FP16 or FP32"
        raise refusal(Precision.INT8, message) from error
    return folded


def _has_weights(path: Path) -> bool:
    graph = onnx.load_model(str(path), load_external_data=False).graph
    constants = {t.name for t in graph.initializer if t.data_type == TensorProto.FLOAT}
    weighted = (node for node in graph.node if node.op_type in _WEIGHTED)
    return any(constants.intersection(node.input[:2]) for node in weighted)


def _quantize(source: Path, target: Path, reader: _Reader, *, large: bool) -> None:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    with quiet():
        quantize_static(
            source,
            target,
            reader,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_OPERATORS),
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            use_external_data_format=large,
            extra_options=dict(_OPTIONS),
        )
    _drop_unused_domains(target)


def _drop_unused_domains(path: Path) -> None:
    """Leave only the opsets that the model uses: onnxruntime lists all that it knows."""
    model = onnx.load_model(str(path), load_external_data=False)
    used = {node.domain for node in onnx_model.all_nodes(model)} | {"", "ai.onnx"}
    kept = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    path.write_bytes(model.SerializeToString())


def _explain(error: Exception, reader: _Reader, count: int) -> JobError:
    text = clean(str(error))[:800]
    if reader.given < count or "INVALID_ARGUMENT" in str(error):
        message = f"{CALIBRATION_FIELD}: the model does not take sample {reader.given - 1}: {text}"
        return JobError(Reason.INVALID_CALIBRATION, message)
    message = f"the model cannot be quantised ({type(error).__name__}: {text}): set FP16 or FP32"
    return refusal(Precision.INT8, message)
