from __future__ import annotations

from concurrent import futures
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.engine_builder.models import ENGINE, an_engine
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import np_to_triton_dtype, serialize_byte_tensor, triton_to_np_dtype

from engine_builder import check, comparison, reference_file, store
from engine_builder.contract import CheckRequest, CheckResult, Reason
from engine_builder.reference_file import Sample

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine_builder.volume import Layout

Answer = "Callable[[dict[str, Any]], dict[str, Any]]"


class Triton(service_pb2_grpc.GRPCInferenceServiceServicer):
    """The inference call of Triton's protocol, with an answer of the test's choice."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: list[service_pb2.ModelInferRequest] = []

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        self.asked.append(request)
        if isinstance(self.answer, tuple):
            context.abort(*self.answer)
        given = dict(zip([i.name for i in request.inputs], request.raw_input_contents, strict=True))
        inputs = {
            i.name: np.frombuffer(given[i.name], triton_to_np_dtype(i.datatype)).reshape(i.shape)
            for i in request.inputs
            if i.datatype != "BYTES"
        }
        response = service_pb2.ModelInferResponse(model_name=request.model_name, model_version="1")
        for name, array in self.answer(inputs).items():
            kind = np_to_triton_dtype(array.dtype)
            response.outputs.add(name=name, datatype=kind, shape=array.shape)
            raw = serialize_byte_tensor(array).item() if kind == "BYTES" else array.tobytes()
            response.raw_output_contents.append(raw)
        return response


@contextmanager
def triton(answer: Any) -> Iterator[tuple[str, Triton]]:
    """Serve the answer, or abort with a (code, text)."""
    double = Triton(answer)
    server = grpc.server(futures.ThreadPoolExecutor(2))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(double, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}", double
    finally:
        server.stop(None).wait()


def _samples(function: Any = lambda x: {"y": x * 2}, *, count: int = 3) -> list[Sample]:
    random = np.random.default_rng(1)
    inputs = [random.random((1, 8)).astype(np.float32) for _ in range(count)]
    return [Sample({"x/0": x}, function(x)) for x in inputs]


def _check(
    layout: Layout, answer: Any, samples: list[Sample] | None = None, **kwargs: Any
) -> tuple[CheckResult, Triton]:
    an_engine(layout)
    path = layout.store / ENGINE / store.REFERENCE_FILE
    reference_file.save(path, _samples() if samples is None else samples)
    with triton(answer) as (address, double):
        request = CheckRequest(
            **{
                "address": address,
                "model": "m",
                "version": "7",
                "engine": ENGINE,
                "minimum_cosine": 0.99,
                "timeout_seconds": 10.0,
                **kwargs,
            }
        )
        return check.check(layout, request), double


def test_equal_answers_succeed_with_their_figures(layout: Layout) -> None:
    result, double = _check(layout, lambda i: {"y": i["x/0"] * 2})
    assert result.reason is Reason.SUCCEEDED
    assert (result.cosine, result.max_error, result.samples) == (pytest.approx(1), 0, 3)
    assert {(a.model_name, a.model_version) for a in double.asked} == {("m", "7")}


def test_nearly_equal_answers_succeed_and_show_the_error(layout: Layout) -> None:
    result, _ = _check(layout, lambda i: {"y": i["x/0"] * 2 + np.float32(0.001)})
    assert result.reason is Reason.SUCCEEDED
    assert result.max_error == pytest.approx(0.001, rel=0.01)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda i: {"y": i["x/0"][:, ::-1].copy()}, "below the minimum cosine 0.99"),
        (lambda i: {"y": -i["x/0"]}, "lowest cosine -1"),
        (lambda i: {"y": i["x/0"] * 0}, "lowest cosine 0"),
        (lambda i: {"y": i["x/0"] * np.nan}, "NaN"),
        (lambda i: {"y": i["x/0"] / 0}, "infinity"),
        (lambda i: {"y": i["x/0"].astype(np.float64)}, "float64"),
        (lambda i: {"y": i["x/0"].reshape(8, 1)}, "shape [8, 1], expected [1, 8]"),
        (lambda i: {"z": i["x/0"]}, "'y' is missing"),
        ((grpc.StatusCode.INVALID_ARGUMENT, "unexpected shape for input"), "unexpected shape for input"),
        ((grpc.StatusCode.INTERNAL, "onnx runtime error 6"), "onnx runtime error 6"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_wrong_answers_are_the_versions_fault_and_say_how(layout: Layout, answer: Any, hint: str) -> None:
    result, _ = _check(layout, answer)
    assert result.reason is Reason.WRONG_ANSWERS
    assert hint in result.message


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'm' is not found"),
        (grpc.StatusCode.UNAVAILABLE, "Request for unknown model: 'm' version 7 is not at ready state"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "queue is full"),
        (grpc.StatusCode.INTERNAL, "Received RST_STREAM with error code 2"),
    ],
)
def test_what_says_nothing_about_the_answers_is_asked_again(layout: Layout, code: Any, text: str) -> None:
    result, _ = _check(layout, (code, text))
    assert result.reason is Reason.UNREACHABLE
    assert text in result.message


def test_a_pod_that_is_not_there_or_hangs_is_unreachable(layout: Layout) -> None:
    result, _ = _check(layout, lambda i: {}, address="127.0.0.1:1", timeout_seconds=2.0)
    assert result.reason is Reason.UNREACHABLE
    import threading

    released = threading.Event()
    path = layout.store / ENGINE / store.REFERENCE_FILE
    path.unlink()
    reference_file.save(path, _samples(count=1))
    with triton(lambda i: (released.wait(5) and {}) or {}) as (address, _):
        request = CheckRequest(address, "m", "7", ENGINE, 0.99, timeout_seconds=0.2)
        assert check.check(layout, request).reason is Reason.UNREACHABLE
        released.set()


def test_an_engine_without_samples_succeeds_and_says_so(layout: Layout) -> None:
    result, double = _check(layout, lambda i: {}, [])
    assert (result.reason, result.message, result.samples) == (Reason.SUCCEEDED, "no reference samples", 0)
    assert double.asked == []


def test_an_engine_whose_reference_cannot_be_read_is_no_wrong_answer(layout: Layout) -> None:
    an_engine(layout)
    (layout.store / ENGINE / store.REFERENCE_FILE).write_bytes(b"garbage")
    assert check.check(layout, CheckRequest("a:1", "m", "1", ENGINE, 0.9)).reason is Reason.UNREACHABLE


OWN = "samples-0123456789abcdef"


def _check_with_own(layout: Layout, answer: Any, own: list[Sample], generated: list[Sample]) -> CheckResult:
    an_engine(layout)
    an_engine(layout, OWN)
    for entry, samples in ((ENGINE, generated), (OWN, own)):
        reference_file.save(layout.store / entry / store.REFERENCE_FILE, samples)
    with triton(answer) as (address, _):
        return check.check(layout, CheckRequest(address, "m", "7", ENGINE, 0.99, samples=OWN))


def test_the_users_own_samples_are_compared_as_well(layout: Layout) -> None:
    result = _check_with_own(layout, lambda i: {"y": i["x/0"] * 2}, _samples(count=5), _samples())
    assert (result.reason, result.samples) == (Reason.SUCCEEDED, 8)
    assert result.message.endswith("over 8 samples, 5 of them your own")


def test_the_worst_of_both_decides(layout: Layout) -> None:
    """Answers are right for what was generated, and not for larger numbers."""
    large = [Sample({"x/0": x}, {"y": x * 2}) for x in (np.arange(8, dtype=np.float32).reshape(1, 8) * 100,)]

    def answer(inputs: Any) -> Any:
        x = inputs["x/0"]
        return {"y": x * 2 if x.max() < 2 else x[:, ::-1].copy()}

    result = _check_with_own(layout, answer, large, _samples())
    assert (result.reason, result.samples) == (Reason.WRONG_ANSWERS, 4)
    assert result.max_error > 100


def test_a_wrong_answer_says_that_it_is_to_the_users_own_sample(layout: Layout) -> None:
    own = [Sample({"x/0": np.ones((1, 8), np.float32)}, {"z": np.ones(1, np.float32)})]
    result = _check_with_own(layout, lambda i: {"y": i["x/0"] * 2}, own, _samples())
    assert (result.reason, result.message) == (
        Reason.WRONG_ANSWERS,
        "your own samples: output 'z' is missing in the answer",
    )


def test_own_samples_give_a_verdict_where_no_generated_input_worked(layout: Layout) -> None:
    result = _check_with_own(layout, lambda i: {"y": -i["x/0"]}, _samples(count=2), [])
    assert (result.reason, result.samples) == (Reason.WRONG_ANSWERS, 2)


def test_own_samples_that_cannot_be_read_are_no_wrong_answer(layout: Layout) -> None:
    result = _check_with_own(layout, lambda i: {"y": i["x/0"] * 2}, _samples(), _samples())
    assert result.reason is Reason.SUCCEEDED
    (layout.store / OWN / store.REFERENCE_FILE).write_bytes(b"garbage")
    with triton(lambda i: {"y": i["x/0"] * 2}) as (address, _):
        result = check.check(layout, CheckRequest(address, "m", "7", ENGINE, 0.99, samples=OWN))
    assert result.reason is Reason.UNREACHABLE
    assert OWN in result.message


def test_text_is_sent_and_compared_as_text(layout: Layout) -> None:
    samples = [Sample({"x": np.array([["1", "zwölf"]])}, {"y": np.array(["ä", "b"])})]
    answer = {"y": np.array(["ä".encode(), b"b"], dtype=np.object_)}
    result, double = _check(layout, lambda i: answer, samples)
    assert result.reason is Reason.SUCCEEDED
    assert "zwölf".encode() in double.asked[0].raw_input_contents[0]


def test_text_that_differs_is_wrong(layout: Layout) -> None:
    samples = [Sample({"x": np.array(["1"])}, {"y": np.array(["a", "b"])})]
    answer = {"y": np.array([b"a", b"x"], dtype=np.object_)}
    result, _ = _check(layout, lambda i: answer, samples)
    assert (result.reason, "1 of 2 strings" in result.message) == (Reason.WRONG_ANSWERS, True)


def test_single_numbers_are_compared_over_all_samples(layout: Layout) -> None:
    """The cosine of two positive numbers is 1 whatever they are."""
    samples = _samples(lambda x: {"y": x[:, :1]})
    result, _ = _check(layout, lambda i: {"y": 1 - i["x/0"][:, :1]}, samples)
    assert result.reason is Reason.WRONG_ANSWERS


_ARRAYS = st.lists(st.floats(-1e30, 1e30), min_size=1, max_size=20).map(np.array)


@given(_ARRAYS)
def test_every_answer_equals_itself(array: Any) -> None:
    found = comparison.compare("y", array, array)
    assert found.cosine == pytest.approx(1)
    assert found.max_error == 0


@given(_ARRAYS, st.floats(-1e30, 1e30), st.data())
def test_figures_stay_in_their_bounds(array: Any, value: float, data: st.DataObject) -> None:
    other = array.copy()
    other[data.draw(st.integers(0, array.size - 1))] = value
    found = comparison.compare("y", array, other)
    assert -1 <= found.cosine <= 1
    assert found.max_error == np.abs(array - other).max()


@pytest.mark.parametrize("dtype", [np.int8, np.uint64, np.int64, np.bool_, np.float16])
def test_whole_numbers_and_flags_are_compared_as_numbers(dtype: Any) -> None:
    one = np.array([0, 1, 1, 1], dtype=dtype)
    assert comparison.compare("y", one, one).cosine == pytest.approx(1)
    assert comparison.compare("y", one, one[::-1]).cosine == pytest.approx(2 / 3)
    assert comparison.compare("y", one * dtype(0), one * dtype(0)).cosine == 1


def test_where_the_source_gives_no_number_none_is_expected() -> None:
    source = np.array([np.nan, np.inf, 1.0])
    assert comparison.compare("y", source, np.array([5.0, np.nan, 1.0])).cosine == pytest.approx(1)
