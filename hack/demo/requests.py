"""Send real requests over HTTP and gRPC, and compare the answers with the right one."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from demo.endpoints import Endpoint
from demo.milestones import Target
from demo.sample import Sample

REQUESTS = 50
"""Requests to each endpoint over each protocol, one after the other."""
TIMEOUT_SECONDS = 30.0

Ask = Callable[[], Any]


@dataclass(frozen=True)
class Outcome:
    """How the requests to one endpoint over one protocol went."""

    endpoint: str
    protocol: str
    sent: int
    right: int
    largest_error: float
    milliseconds: Sequence[float]
    failures: Sequence[str] = ()

    def percentile(self, part: float) -> float:
        """Return a latency in milliseconds: half of the requests were faster than `percentile(0.5)`."""
        ordered = sorted(self.milliseconds)
        return ordered[max(0, math.ceil(part * len(ordered)) - 1)] if ordered else math.nan


def ask_all(endpoints: Sequence[Endpoint], target: Target, sample: Sample) -> Sequence[Outcome]:
    """Send the requests to every endpoint over both protocols."""
    return [
        outcome
        for endpoint in endpoints
        for outcome in (_over_http(endpoint, target, sample), _over_grpc(endpoint, target, sample))
    ]


def _over_http(endpoint: Endpoint, target: Target, sample: Sample) -> Outcome:
    client = tritonclient.http.InferenceServerClient(endpoint.http, network_timeout=TIMEOUT_SECONDS)
    entry = tritonclient.http.InferInput(sample.input_name, list(sample.input.shape), "FP32")
    entry.set_data_from_numpy(sample.input)

    def ask() -> Any:
        answer = client.infer(target.model, [entry], model_version=str(target.version))
        return answer.as_numpy(sample.output_name)

    try:
        return _repeat(ask, endpoint, "HTTP", sample)
    finally:
        client.close()


def _over_grpc(endpoint: Endpoint, target: Target, sample: Sample) -> Outcome:
    client = tritonclient.grpc.InferenceServerClient(endpoint.grpc)
    entry = tritonclient.grpc.InferInput(sample.input_name, list(sample.input.shape), "FP32")
    entry.set_data_from_numpy(sample.input)

    def ask() -> Any:
        version = str(target.version)
        answer = client.infer(target.model, [entry], model_version=version, client_timeout=TIMEOUT_SECONDS)
        return answer.as_numpy(sample.output_name)

    try:
        return _repeat(ask, endpoint, "gRPC", sample)
    finally:
        client.close()


def _repeat(ask: Ask, endpoint: Endpoint, protocol: str, sample: Sample) -> Outcome:
    right, error, milliseconds, failures = 0, 0.0, [], []
    for _ in range(REQUESTS):
        began = time.perf_counter()
        try:
            answer = ask()
        except (InferenceServerException, OSError) as failed:
            failures.append(str(failed))
            continue
        milliseconds.append(1000 * (time.perf_counter() - began))
        right += sample.is_right(answer)
        error = max(error, sample.error(answer))
    return Outcome(endpoint.name, protocol, REQUESTS, right, error, milliseconds, failures)
