"""The check of a version: do a server's answers equal the source's own?

Needs numpy and tritonclient, imported when a check runs: the keeper starts without them.
"""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Any

from engine_builder import store
from engine_builder.contract import CheckRequest, CheckResult, Reason
from engine_builder.errors import EngineBuilderError

if TYPE_CHECKING:
    import numpy as np

    from engine_builder.reference_file import Sample
    from engine_builder.volume import Layout

    Array = np.ndarray[Any, Any]

_PASSING = frozenset(
    {"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "NOT_FOUND", "RESOURCE_EXHAUSTED", "ABORTED"}
)
"""gRPC codes that say nothing about the answers: ask again."""
_BROKEN_STREAM = ("RST_STREAM", "Stream removed", "Socket closed", "Connection reset")
_ZERO = 1e-6
"""Largest error by which an answer still counts as zero."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Figures of one output, or of the worst of several."""

    cosine: float = 1.0
    max_error: float = 0.0

    def worse(self, other: Comparison) -> Comparison:
        """Return the lowest cosine and the largest error of both."""
        return Comparison(min(self.cosine, other.cosine), max(self.max_error, other.max_error))


class _UnreadableError(EngineBuilderError):
    """Samples that cannot be read; that is not the version's fault."""


class _WrongAnswerError(EngineBuilderError):
    """An answer that no figure can describe."""


def check(layout: Layout, request: CheckRequest) -> CheckResult:
    """Send an engine's reference samples, and the user's own, to a pod and compare the answers."""
    from tritonclient.utils import InferenceServerException

    inquiry, whose = _Inquiry(layout, request), ""
    try:
        inquiry.ask(request.engine)
        if request.samples:
            whose = "your own samples: "
            inquiry.own = inquiry.ask(request.samples)
    except _UnreadableError as error:
        return CheckResult(Reason.UNREACHABLE, str(error), samples=inquiry.samples)
    except _WrongAnswerError as error:
        return CheckResult(Reason.WRONG_ANSWERS, f"{whose}{error}", samples=inquiry.samples)
    except InferenceServerException as error:
        message = f"{whose}{request.address}: {error.message()}"
        return CheckResult(_blame(error), message, samples=inquiry.samples)
    return inquiry.judged()


class _Inquiry:
    """One check under way: the worst answer so far, and how many samples were asked."""

    def __init__(self, layout: Layout, request: CheckRequest) -> None:
        self._layout, self._request = layout, request
        self._deadline = time.monotonic() + request.timeout_seconds
        self._worst = Comparison()
        self.samples = 0
        self.own = 0
        """Samples of the user's among them."""

    def ask(self, entry: str) -> int:
        """Ask all samples of an entry of the store; returns how many there were."""
        from engine_builder import reference_file

        try:
            samples = reference_file.load(self._layout.store / entry / store.REFERENCE_FILE)
        except (OSError, ValueError) as error:
            raise _UnreadableError(f"the reference answers of {entry} cannot be read: {error}") from error
        self.samples += len(samples)
        if samples:
            worst = _ask_all(self._request, samples, deadline=self._deadline)
            self._worst = self._worst.worse(worst)
        return len(samples)

    def judged(self) -> CheckResult:
        """Return the figures and whether they suffice."""
        if not self.samples:
            return CheckResult(Reason.SUCCEEDED, "no reference samples", cosine=1.0)
        worst, lowest = self._worst, self._request.minimum_cosine
        good = worst.cosine >= lowest
        figures = f"lowest cosine {worst.cosine:.6f}, largest error {worst.max_error:.3g}"
        counts = f"over {self.samples} samples" + (f", {self.own} of them your own" if self.own else "")
        return CheckResult(
            Reason.SUCCEEDED if good else Reason.WRONG_ANSWERS,
            f"{figures} {counts}" + ("" if good else f": below the minimum cosine {lowest:g}"),
            cosine=worst.cosine,
            max_error=worst.max_error,
            samples=self.samples,
        )


def _blame(error: Any) -> Reason:
    code = str(error.status() or "").removeprefix("StatusCode.")
    text = str(error.message())
    passing = code in _PASSING or any(sign in text for sign in _BROKEN_STREAM)
    return Reason.UNREACHABLE if passing else Reason.WRONG_ANSWERS


def _ask_all(request: CheckRequest, samples: list[Sample], *, deadline: float) -> Comparison:
    import numpy as np
    from tritonclient.grpc import InferenceServerClient

    worst = Comparison()
    pairs: dict[str, list[tuple[Array, Array]]] = {}
    with InferenceServerClient(request.address) as client:
        for sample in samples:
            answers = _ask(client, request, sample, max(deadline - time.monotonic(), 0.001))
            for name, expected in sample.outputs.items():
                worst = worst.worse(compare(name, expected, answers.get(name)))
                pairs.setdefault(name, []).append((expected, answers[name]))
    for name, found in pairs.items():  # single numbers differ only when seen together
        if all(expected.size == 1 and expected.dtype.kind != "U" for expected, _ in found):
            both = (np.concatenate([np.ravel(p[side]) for p in found]) for side in (0, 1))
            worst = worst.worse(compare(name, *both))
    return worst


def _ask(client: Any, request: CheckRequest, sample: Sample, timeout: float) -> dict[str, Array]:
    from tritonclient.grpc import InferInput, InferRequestedOutput
    from tritonclient.utils import np_to_triton_dtype

    inputs = []
    for name, value in sample.inputs.items():
        sent = _to_bytes(value) if value.dtype.kind == "U" else value
        tensor = InferInput(name, list(sent.shape), np_to_triton_dtype(sent.dtype))
        tensor.set_data_from_numpy(sent)
        inputs.append(tensor)
    answer = client.infer(
        model_name=request.model,
        model_version=request.version,
        inputs=inputs,
        outputs=[InferRequestedOutput(name) for name in sample.outputs],
        client_timeout=timeout,
    )
    found = {name: answer.as_numpy(name) for name in sample.outputs}
    return {name: _to_text(a) if a.dtype.kind == "O" else a for name, a in found.items() if a is not None}


def _to_bytes(text: Array) -> Array:
    import numpy as np

    return np.array([str(t).encode() for t in text.ravel()], dtype=np.object_).reshape(text.shape)


def _to_text(raw: Array) -> Array:
    import numpy as np

    texts = [b.decode(errors="replace") if isinstance(b, bytes) else str(b) for b in raw.ravel()]
    return np.array(texts, dtype=np.str_).reshape(raw.shape)


def compare(name: str, expected: Array, found: Array | None) -> Comparison:
    """Compare one output.

    Where the source itself gives NaN or infinity, nothing is expected of the answer.

    Raises:
        _WrongAnswerError: it is missing, of another type or shape, text that differs, or not finite.
    """
    import numpy as np

    if found is None:
        raise _WrongAnswerError(f"output {name!r} is missing in the answer")
    kinds = [_kind(expected), _kind(found)]
    if kinds[0] != kinds[1]:
        raise _WrongAnswerError(f"output {name!r} is {kinds[1]}, expected {kinds[0]}")
    if expected.shape != found.shape:
        raise _WrongAnswerError(
            f"output {name!r} has shape {list(found.shape)}, expected {list(expected.shape)}"
        )
    if expected.dtype.kind == "U":
        if not np.array_equal(expected, found):
            raise _WrongAnswerError(
                f"output {name!r}: {int((expected != found).sum())} of {expected.size} strings differ"
            )
        return Comparison()
    finite = np.isfinite(expected)
    left, right = (a[finite].astype(np.float64) for a in (expected, found))
    if not np.isfinite(right).all():
        raise _WrongAnswerError(f"output {name!r} holds NaN or infinity where the source's answer has none")
    return _figures(left, right)


def _kind(array: Array) -> str:
    return "BYTES" if array.dtype.kind == "U" else array.dtype.name


def _figures(left: Array, right: Array) -> Comparison:
    import numpy as np

    if not left.size:
        return Comparison()
    error = float(np.abs(left - right).max())
    largest = [float(np.abs(side).max()) for side in (left, right)]
    if not all(largest):
        return Comparison(1.0 if error <= _ZERO else 0.0, error)
    left, right = left / largest[0], right / largest[1]  # squares stay within float64
    cosine = float(left @ right / (np.linalg.norm(left) * np.linalg.norm(right)))
    return Comparison(max(-1.0, min(1.0, cosine)), error)
