"""gRPC clients: a few channels, used in turn."""

from __future__ import annotations

import asyncio
from itertools import count, cycle

import grpc
import grpc.aio
from tritonclient.grpc import service_pb2
from tritonclient.utils import np_to_triton_dtype

from load.answer import Answer
from load.plan import Question, Stream
from load.record import Outcome

_METHOD = "/inference.GRPCInferenceService/ModelInfer"
_OPTIONS = [
    ("grpc.max_send_message_length", 2**31 - 1),
    ("grpc.max_receive_message_length", 2**31 - 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),  # or all channels to an address share one connection
    # No retry policy. What never got onto a connection that is ending, gRPC puts onto the next: without that,
    # any change of connection may fail a request that no server ever saw.
    ("grpc.service_config", "{}"),
    ("grpc.service_config_disable_resolution", 1),
    # Who lost a connection looks for the next at once: behind a Service it leads to another pod.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
]
_UNKNOWN_MODEL = "Request for unknown model"
"""Triton's answer under UNAVAILABLE, which otherwise means that nobody answered."""
_BROKEN = ("Received RST_STREAM", "Stream removed")
"""A connection's end under other codes."""


class Channels:
    """Channels that each keep one connection, and make another when the server wants it to end."""

    def __init__(self, stream: Stream, question: Question, *, timeout: float) -> None:
        self._request = _request(stream, question)
        self._timeout = timeout
        self._channels = [
            _Channel(f"{stream.name}#{n + 1}", stream.address) for n in range(stream.connections)
        ]
        self._turns = cycle(self._channels)

    async def ask(self) -> tuple[str, Answer]:
        """Send the question once."""
        channel = next(self._turns)
        name = channel.name
        try:
            response = await channel.call(self._request, timeout=self._timeout)
        except grpc.aio.AioRpcError as error:
            words = f"{error.code().name}: {error.details()}"
            return name, Answer(failed=_failure(error.code(), error.details() or ""), error=words)
        content = response.raw_output_contents[0] if response.raw_output_contents else b""
        return name, Answer(version=int(response.model_version), content=content)

    async def close(self) -> None:
        """Close all channels."""
        await asyncio.gather(*(channel.close() for channel in self._channels))


class _Channel:
    """A channel that counts its connections."""

    def __init__(self, name: str, address: str) -> None:
        self._name = name
        self._connections = count(1)
        self._connection = next(self._connections)
        self._channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
        self.call = self._channel.unary_unary(
            _METHOD,
            request_serializer=bytes,
            response_deserializer=service_pb2.ModelInferResponse.FromString,
        )
        self._watch = asyncio.ensure_future(self._count_connections())

    @property
    def name(self) -> str:
        """A name that changes when the connection ends."""
        return f"{self._name}.{self._connection}"

    async def close(self) -> None:
        """Close the connection."""
        self._watch.cancel()
        await asyncio.gather(self._watch, return_exceptions=True)
        await self._channel.close(grace=None)

    async def _count_connections(self) -> None:
        state = self._channel.get_state(try_to_connect=True)
        while state is not grpc.ChannelConnectivity.SHUTDOWN:
            await self._channel.wait_for_state_change(state)
            if state is grpc.ChannelConnectivity.READY:
                self._connection = next(self._connections)
            state = self._channel.get_state()


def _request(stream: Stream, question: Question) -> bytes:
    request = service_pb2.ModelInferRequest(model_name=question.model)
    if stream.version is not None:
        request.model_version = str(stream.version)
    entry = request.inputs.add(name=question.input_name, shape=question.input.shape)
    entry.datatype = np_to_triton_dtype(question.input.dtype)
    request.outputs.add(name=question.output_name)
    request.raw_input_contents.append(question.input.tobytes())
    return bytes(request.SerializeToString())


def _failure(code: grpc.StatusCode, details: str) -> Outcome:
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Outcome.LATE
    if details.startswith(_UNKNOWN_MODEL):
        return Outcome.REFUSED
    unanswered = code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    return Outcome.CUT if unanswered or details.startswith(_BROKEN) else Outcome.REFUSED
