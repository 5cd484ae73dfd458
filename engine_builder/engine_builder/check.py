"""The check of a version: do a server's answers equal the source's own?

Needs numpy and tritonclient, imported when a check runs: the keeper starts without them.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from engine_builder import store
from engine_builder.comparison import Comparison, Tally, WrongAnswerError, worst_of
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


class _UnreadableError(EngineBuilderError):
    """Samples that cannot be read; that is not the version's fault."""


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
    except WrongAnswerError as error:
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
    from tritonclient.grpc import InferenceServerClient

    tally = Tally()
    with InferenceServerClient(request.address) as client:
        for sample in samples:
            answers = _ask(client, request, sample, max(deadline - time.monotonic(), 0.001))
            for name, expected in sample.outputs.items():
                tally.add(name, expected, answers.get(name))
    return worst_of(tally.figures().values())


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
