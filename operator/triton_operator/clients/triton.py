"""One Triton pod over gRPC: what it has loaded, load this, unload that, is it ready.

Only gRPC: a load over HTTP holds one of the few HTTP workers that answer requests.

    TritonError
    ├── TritonUnreachable    nobody answered: ask again
    │   └── TritonTimeout    not in time; what was asked for may go on
    └── TritonRefused        Triton answered no, and says why
"""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING, TypeVar

import grpc
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from engine_builder import faults
from engine_builder.contract import CONFIG_PARAMETER
from triton_operator.clients.errors import ClientError

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from collections.abc import Set as AbstractSet

KEY_HEADER = "triton-grpc-protocol-triton-operator-key"
"""gRPC metadata that carries the control key: Triton's prefix and the name it is started with."""

_LONGEST_MESSAGE = 2**31 - 1
_CHANNEL = [
    ("grpc.max_send_message_length", _LONGEST_MESSAGE),
    ("grpc.max_receive_message_length", _LONGEST_MESSAGE),
    ("grpc.enable_http_proxy", 0),  # pods are never behind the proxy that the environment names
    ("grpc.use_local_subchannel_pool", 1),  # a pod that took over an address is another server
    ("grpc.initial_reconnect_backoff_ms", 200),  # a pod that starts opens its port any moment
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # No keepalive pings: Triton's defaults take them for an attack during a long load, and end it.
]
_PASSING = frozenset(
    str(code)
    for code in (
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.CANCELLED,
    )
)
_RESTRICTED = "This protocol is restricted"
_ANSWERS = (_RESTRICTED, "Request for unknown model")
"""Triton's own words under UNAVAILABLE, which otherwise means that nobody answered."""
_BROKEN = ("Received RST_STREAM", "Stream removed")
"""A connection's end under other codes."""

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class ModelVersion:
    """A row of Triton's repository index."""

    model: str
    version: int
    """0 when the row has none: nothing of the model was ever loaded."""
    state: str
    """READY, LOADING, UNLOADING, UNAVAILABLE or, when never loaded, empty."""
    reason: str
    """Why it is not READY, in Triton's words."""


class TritonError(ClientError):
    """A call to a Triton pod failed."""

    def __init__(self, reason: str) -> None:
        """Keep Triton's own words, or the connection's."""
        # A Python backend's exception brings its stack along, which is in the pod's log as well.
        self.reason = reason.partition("\n\nAt:")[0].strip()
        super().__init__(self.reason)


class TritonUnreachable(TritonError):
    """The pod did not answer, or not in time; what it did meanwhile is unknown."""


class TritonTimeout(TritonUnreachable):
    """The pod did not answer in time; a load that was asked for goes on all the same."""


class TritonRefused(TritonError):
    """The pod answered that it will not or cannot."""


class Triton:
    """A Triton pod at `host:port`; every call has a deadline."""

    def __init__(self, address: str, *, control_key: str, timeout: float = 10) -> None:
        """Open no connection yet: the first call does. Needs a running event loop."""
        self._client = InferenceServerClient(address, channel_args=_CHANNEL)
        self._headers = {KEY_HEADER: control_key}
        self._timeout = timeout

    async def close(self) -> None:
        """Close the connection; calls under way end as unreachable."""
        await self._client.close()

    async def server_ready(self) -> bool:
        """Return whether Triton says that it is ready."""
        return bool(await _call(self._client.is_server_ready(client_timeout=self._timeout)))

    async def name(self) -> str:
        """Return how the server calls itself: the pod's name, by which a reused address is noticed."""
        answer = await _call(self._client.get_server_metadata(client_timeout=self._timeout))
        return str(answer.name)

    async def index(self) -> tuple[ModelVersion, ...]:
        """Return every model and version that Triton knows of."""
        answer = await _call(
            self._client.get_model_repository_index(headers=self._headers, client_timeout=self._timeout)
        )
        return tuple(
            ModelVersion(row.name, int(row.version or 0), row.state, row.reason) for row in answer.models
        )

    async def config_fingerprint(self, model: str) -> str | None:
        """Return the fingerprint in the configuration that a loaded model runs with.

        None when it carries none, or when no version of the model is ready.

        Raises:
            TritonRefused: the control key is not the one that the pod was started with.
        """
        try:
            answer = await _call(
                self._client.get_model_config(model, headers=self._headers, client_timeout=self._timeout)
            )
        except TritonRefused as error:
            if error.reason.startswith(_RESTRICTED):
                raise
            return None
        if CONFIG_PARAMETER not in answer.config.parameters:
            return None
        return str(answer.config.parameters[CONFIG_PARAMETER].string_value)

    async def load(
        self,
        model: str,
        config: str,
        *,
        timeout: float,  # noqa: ASYNC109 - gRPC keeps it
        versions: AbstractSet[int] | None = None,
    ) -> None:
        """Make a model run with this complete config.pbtxt; returns when Triton has done it.

        `versions` narrows the set that the configuration selects.

        Raises:
            ValueError: the text is not a model configuration.
            TritonTimeout: it takes longer, and goes on.
            TritonRefused: a version failed to load. What served before goes on serving.
        """
        override = config_json(config, versions=versions)
        await _call(
            self._client.load_model(model, headers=self._headers, config=override, client_timeout=timeout)
        )
        faults.point("triton.load", model)

    async def unload(self, model: str) -> None:
        """Start to unload all versions of a model; the index shows UNLOADING until requests end."""
        await _call(self._client.unload_model(model, headers=self._headers, client_timeout=self._timeout))
        faults.point("triton.unload", model)

    async def version_ready(self, model: str, version: int) -> bool:
        """Return whether this very version answers requests."""
        try:
            return bool(
                await _call(self._client.is_model_ready(model, str(version), client_timeout=self._timeout))
            )
        except TritonRefused:
            return False


def config_json(config: str, *, versions: AbstractSet[int] | None = None) -> str:
    """Turn config.pbtxt into the JSON that a load takes as override, selecting `versions` if given.

    Raises:
        ValueError: the text is not a model configuration.
    """
    try:
        message = text_format.Parse(config, model_config_pb2.ModelConfig())
    except text_format.ParseError as error:
        raise ValueError(f"not a model configuration: {error}") from error
    if versions is not None:
        message.version_policy.specific.ClearField("versions")
        message.version_policy.specific.versions.extend(sorted(versions))
    return json_format.MessageToJson(message, preserving_proto_field_name=True, indent=None)


async def _call(call: Awaitable[_T]) -> _T:
    try:
        return await call
    except InferenceServerException as error:
        raise _error_of(error) from error
    except (grpc.aio.UsageError, OSError) as error:
        raise TritonUnreachable(str(error)) from error
    except asyncio.CancelledError as error:
        # gRPC says the same when this task is cancelled and when the channel was closed under it
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise TritonUnreachable("the connection was closed") from error


def _error_of(error: InferenceServerException) -> TritonError:
    reason = str(error.message())
    if reason.startswith(_ANSWERS):
        return TritonRefused(reason)
    if error.status() == str(grpc.StatusCode.DEADLINE_EXCEEDED):
        return TritonTimeout(reason)
    if error.status() in _PASSING or reason.startswith(_BROKEN):
        return TritonUnreachable(reason)
    return TritonRefused(reason)
