"""TensorRT's own texts: as TensorRT for RTX 1.7 gave them, or as TensorRT's reports and sources hold them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_builder.compilers import explain
from engine_builder.compilers.explain import Refusal
from engine_builder.contract import CompileOptions, Reason

NOISE = (
    "[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (In catchCudaError at "
    "/_src/common/dispatch/checkMacros.cpp:250 (cudaError 35: CUDA driver version is insufficient for CUDA "
    "runtime version))"
)
BUILD = "IBuilder::buildSerializedNetwork: "
USAGE = BUILD + "Error Code 4: API Usage Error ({} In validate at /_src/api.cpp:4023)"
MYELIN = BUILD + "Error Code 1: Myelin ([pass.cpp:337: check] {} In compile at /_src/a.cpp:12)"
INTERNAL = BUILD + "Error Code 10: Internal Error ({})"
MEMORY = "[virtualMemoryBuffer.cpp::resizePhysical::154] Error Code 2: OutOfMemory ({})"
MISMATCH = (
    "Dimension mismatch for tensor x and profile 0. At dimension axis 2, profile has min=16, opt=16, max=16 "
    "but tensor has 32."
)
HARDWARE = "Cannot compile for target(s) sm86, because the model contains HW-specific datatypes: fp8_e4m3."
BIAS = (
    "Invalid Node - bias_d\n"
    "ITensor::getDimensions: Error Code 4: API Usage Error (bias_d: input has type Int32 but must have type "
    "FP8, FP4, Int4, Int8, or UInt8. In checkType at /_src/optimizer/nodeBase.cpp:456)\n"
)
LACKING = (
    "Failed to import initializer: In node -1 with name:  and operator:  (importInitializers): "
    "UNSUPPORTED_NODE: Assertion failed: ctx->getWeightsContext().convertOnnxWeights(initializer, &weights): "
    "Failed to import initializer: w"
)
UNREGISTERED = "Node input was not registered."
DILATIONS = '(dilations[i] == 1) && "This version of TensorRT does not support dilations other than 1."'
OLD_BROADCAST = (
    "Assertion failed: ctx->getOpsetVersion() >= 7: Pre-opset 7 broadcasting is unsupported in this version "
    "of the ONNX parser"
)
NO_SUCH_TYPE = (
    "Assertion failed: convertDtype(onnxDtype.elem_type(), &trtDtype) && "
    '"Failed to convert ONNX date type to TensorRT data type."'
)
ZERO_POINT = "Assertion failed: shiftIsAllZeros(zeroPoint): Non-zero zero point is not supported."


@pytest.mark.parametrize(
    ("text", "reason", "words"),
    [
        (
            INTERNAL.format("Could not find any implementation for node {ForeignNode[/conv1/Conv.../Relu]}."),
            Reason.BUILDER_OUT_OF_MEMORY,
            ["node {ForeignNode[/conv1/Conv.../Relu]} that fits", "workspacePercent 70", "maxBatchSize 20"],
        ),
        (
            INTERNAL.format("no tactics to implement the operation within workspace limit"),
            Reason.BUILDER_OUT_OF_MEMORY,
            ["build.workspacePercent"],
        ),
        (
            MEMORY.format("Requested size was 8589934592 bytes."),
            Reason.BUILDER_OUT_OF_MEMORY,
            ["the GPU's memory did not suffice"],
        ),
        (
            MYELIN.format("Cannot compile operation 'fc' for Turing (SM75): FP32 GEMM is not supported."),
            Reason.UNSUPPORTED_PRECISION,
            ["node 'fc' does not run on Turing (SM75): FP32 GEMM is not supported;", "build.precision"],
        ),
        (
            MYELIN.format(HARDWARE),
            Reason.UNSUPPORTED_PRECISION,
            ["has no fp8_e4m3:", "newer GPU"],
        ),
        (
            USAGE.format(
                "Network has dynamic or shape inputs, but no optimization profile has been defined."
            ),
            Reason.PROFILE_MISSING,
            ["build.profiles"],
        ),
        (
            USAGE.format("Dynamic input tensor x is missing dimensions in profile 0."),
            Reason.PROFILE_MISSING,
            ["build.profiles[0] says nothing of input 'x'"],
        ),
        (
            USAGE.format("Optimization profile 0 is missing values for shape input tensor s."),
            Reason.PROFILE_MISSING,
            ["input 's', which holds a shape"],
        ),
        (USAGE.format(MISMATCH), Reason.INVALID_PROFILE, ["see build.profiles", "dimension axis 2"]),
        (USAGE.format("Network must have at least one output."), Reason.INVALID_MODEL, ["no outputs"]),
        (
            "Error Code 7: BuildCanceled (Build canceled by user in the progress monitor)",
            Reason.CANCELLED,
            ["starts afresh"],
        ),
        (
            USAGE.format("Something nobody has seen."),
            Reason.BUILD_FAILED,
            ["TensorRT 10.9.0.34 cannot build the model: Something nobody has seen."],
        ),
    ],
)
def test_a_failed_build_has_a_reason_and_a_remedy(text: str, reason: Reason, words: list[str]) -> None:
    error = explain.build_failure(
        [text, NOISE, "and what followed from it"],
        version="10.9.0.34",
        options=CompileOptions(max_batch_size=20),
    )
    assert error.reason is reason
    for word in words:
        assert word in error.message
    assert "\n" not in error.message
    assert "Error Code" not in error.message
    assert ".cpp" not in error.message


def test_the_cause_is_the_first_error_and_not_cudas_noise() -> None:
    error = explain.build_failure([NOISE, "odd one", "odd two"], version="1.7", options=CompileOptions())
    assert "odd one" in error.message
    assert "odd two" not in error.message


def test_cudas_own_errors_count_where_there_is_nothing_else() -> None:
    error = explain.build_failure([NOISE], version="10.9", options=CompileOptions())
    assert error.reason is Reason.DRIVER_TOO_OLD


def test_a_build_that_says_nothing_is_told_as_such() -> None:
    error = explain.build_failure([], version="10.9", options=CompileOptions())
    assert (error.reason, "said nothing" in error.message) == (Reason.BUILD_FAILED, True)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["CUDA initialization failure with error: 35. Please check your CUDA"], Reason.DRIVER_TOO_OLD),
        (["CUDA initialization failure with error: 100"], Reason.NO_GPU),
        (["CUDA initialization failure with error: 999"], Reason.NO_GPU),
        (["something else"], Reason.BUILD_FAILED),
        ([], Reason.BUILD_FAILED),
    ],
)
def test_a_tensorrt_that_does_not_begin_says_why(lines: list[str], reason: Reason) -> None:
    assert explain.no_builder(lines).reason is reason


@pytest.mark.parametrize(
    ("refusals", "reason", "words"),
    [
        (
            [
                Refusal(
                    "INVALID_NODE",
                    'creator && "Plugin not found, are the plugin name, version, and namespace correct?"',
                    7,
                    "fancy0",
                    "FancyOp",
                )
            ],
            Reason.UNSUPPORTED_OPERATOR,
            ["TensorRT 10.9 has no operator FancyOp (node 'fancy0')", "ONNXRuntime"],
        ),
        (
            [
                Refusal("UNSUPPORTED_NODE", "'false'", 0, "det", "Det"),
                Refusal("UNSUPPORTED_NODE", "'false'", 3, "u", "Unique"),
                Refusal("UNSUPPORTED_NODE", "'false'", 4, "u2", "Unique"),
            ],
            Reason.UNSUPPORTED_OPERATOR,
            ["does not support Det as node 'det' has it:", "the same holds for Unique"],
        ),
        (
            [Refusal("UNSUPPORTED_NODE_ATTR", "mode must be linear", 2, "", "Resize")],
            Reason.UNSUPPORTED_OPERATOR,
            ["Resize as node 2 has it (mode must be linear)"],
        ),
        (
            [Refusal("UNSUPPORTED_NODE", DILATIONS, 2, "", "MaxPool")],
            Reason.UNSUPPORTED_OPERATOR,
            ["MaxPool as node 2 has it (This version of TensorRT does not support dilations other than 1.)"],
        ),
        (
            [Refusal("UNSUPPORTED_NODE", OLD_BROADCAST)],
            Reason.UNSUPPORTED_OPERATOR,
            ["ONNX of opset 6", "onnx.version_converter"],
        ),
        (
            [
                Refusal("UNSUPPORTED_NODE", NO_SUCH_TYPE),
                Refusal("UNSUPPORTED_NODE", "'false'", 0, "s", "StringNormalizer"),
            ],
            Reason.UNSUPPORTED_OPERATOR,
            ["lacks a type that the model has, such as text", "StringNormalizer"],
        ),
        (
            [Refusal("MODEL_DESERIALIZE_FAILED", "Failed to parse the ONNX model.")],
            Reason.INVALID_MODEL,
            ["truncated or no ONNX"],
        ),
        (
            [Refusal("INVALID_GRAPH", LACKING)],
            Reason.INVALID_MODEL,
            ["external data is missing or too short"],
        ),
        (
            [Refusal("INVALID_NODE", ZERO_POINT, 3, "q", "QuantizeLinear")],
            Reason.UNSUPPORTED_PRECISION,
            ["node 'q'", "symmetrically"],
        ),
        (
            [Refusal("INVALID_NODE", BIAS + NOISE, 3, "bias_d", "DequantizeLinear")],
            Reason.UNSUPPORTED_PRECISION,
            ["quantised bias"],
        ),
        (
            [
                Refusal(
                    "INVALID_GRAPH", f"Assertion failed: (ctx->count(name)): {UNREGISTERED}", 1, "add", "Add"
                )
            ],
            Reason.INVALID_MODEL,
            ["node 'add' wrong: Node input was not registered."],
        ),
        (
            [Refusal("INTERNAL_ERROR", "odd", 1, "n", "Op")],
            Reason.BUILD_FAILED,
            ["refuses node 'n' (Op): odd"],
        ),
        ([], Reason.INVALID_MODEL, ["does not say why"]),
    ],
)
def test_what_the_parser_refuses_names_node_operator_and_remedy(
    refusals: list[Refusal], reason: Reason, words: list[str]
) -> None:
    error = explain.parse_failure(refusals, version="10.9")
    assert error.reason is reason
    for word in words:
        assert word in error.message


def test_a_long_text_is_cut() -> None:
    error = explain.build_failure(["x" * 5000], version="10.9", options=CompileOptions())
    assert len(error.message) < 700


@pytest.mark.parametrize(
    "line",
    [
        "WeightsContext.cpp:203: Failed to open file: /repository/store/onnxruntime-1/weights.bin",
        "WeightsContext.cpp:222: ONNX external weights offset/length out of range for file: /r/weights.bin (",
    ],
)
def test_external_data_that_lacks_is_named_from_the_log(line: str) -> None:
    error = explain.parse_failure([Refusal("INVALID_GRAPH", LACKING)], version="10.9", log=[NOISE, line])
    assert "weights.bin is missing or too short" in error.message
    assert "/r" not in error.message


@given(st.lists(st.text(max_size=80) | st.sampled_from([NOISE, MISMATCH, BIAS, USAGE, MYELIN]), max_size=5))
def test_whatever_tensorrt_says_becomes_one_line_of_a_bounded_length(lines: list[str]) -> None:
    error = explain.build_failure(lines, version="10.9", options=CompileOptions())
    assert len(error.message.splitlines()) == 1
    assert len(error.message) < 1000
