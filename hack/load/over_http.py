"""HTTP clients: connections that are kept for a while, or a new one for every request."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from itertools import count
from types import SimpleNamespace

import aiohttp
from tritonclient.utils import np_to_triton_dtype

from load.answer import Answer
from load.plan import Question, Stream
from load.record import Outcome

_JSON_LENGTH = "Inference-Header-Content-Length"
"""Triton's binary form: so many bytes of JSON, then the tensors."""
_FOREVER = 86_400.0


class KeptConnections:
    """A few connections, used in turn; each is closed between two requests once it is old enough.

    A request never waits for one that is free: with all of them under way it opens another.
    """

    def __init__(self, stream: Stream, question: Question, *, timeout: float) -> None:
        self._stream = stream
        self._request = _Request(stream, question, timeout=timeout)
        self._idle: deque[_Connection] = deque()
        self._open: set[_Connection] = set()
        self._closing: set[asyncio.Future[None]] = set()
        self._numbers = count(1)

    async def ask(self) -> tuple[str, Answer]:
        """Send the question once."""
        connection = self._take()
        answer = await self._request.send(connection.session)
        name = connection.name
        if connection.expired or len(self._idle) >= self._stream.connections:
            self._discard(connection)
        else:
            self._idle.append(connection)
        return name, answer

    async def close(self) -> None:
        """Close every connection."""
        for connection in list(self._open):
            self._discard(connection)
        await asyncio.gather(*self._closing)

    def _take(self) -> _Connection:
        # Those that are missing come first: every pod behind a Service is to get requests.
        if self._idle and len(self._open) >= self._stream.connections:
            return self._idle.popleft()
        made = _Connection(f"{self._stream.name}#{next(self._numbers)}")
        self._open.add(made)
        asyncio.get_running_loop().call_later(self._stream.max_age, self._expire, made)
        return made

    def _expire(self, connection: _Connection) -> None:
        connection.expired = True
        if connection in self._idle:
            self._idle.remove(connection)
            self._discard(connection)

    def _discard(self, connection: _Connection) -> None:
        self._open.discard(connection)
        closing = asyncio.ensure_future(connection.session.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)


class NewConnections:
    """A connection for every request."""

    def __init__(self, stream: Stream, question: Question, *, timeout: float) -> None:
        self._name = stream.name
        self._request = _Request(stream, question, timeout=timeout)
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True, limit=0))
        self._numbers = count(1)

    async def ask(self) -> tuple[str, Answer]:
        """Send the question once."""
        name = f"{self._name}#{next(self._numbers)}"
        return name, await self._request.send(self._session)

    async def close(self) -> None:
        """Close what is open."""
        await self._session.close()


class _Connection:
    """A session with room for one connection."""

    def __init__(self, name: str) -> None:
        self.expired = False
        self._name = name
        self._opened = 0
        trace = aiohttp.TraceConfig()
        trace.on_connection_create_end.append(self._count)
        connector = aiohttp.TCPConnector(limit=1, keepalive_timeout=_FOREVER)
        self.session = aiohttp.ClientSession(connector=connector, trace_configs=[trace])

    @property
    def name(self) -> str:
        """A name that changes when the server closed the connection and another took its place."""
        return f"{self._name}.{self._opened}"

    async def _count(
        self,
        _session: aiohttp.ClientSession,
        _context: SimpleNamespace,
        _created: aiohttp.TraceConnectionCreateEndParams,
    ) -> None:
        self._opened += 1


class _Request:
    """A stream's one request, ready to be sent again and again."""

    def __init__(self, stream: Stream, question: Question, *, timeout: float) -> None:
        version = "" if stream.version is None else f"/versions/{stream.version}"
        content = question.input.tobytes()
        entry = {
            "name": question.input_name,
            "shape": list(question.input.shape),
            "datatype": np_to_triton_dtype(question.input.dtype),
            "parameters": {"binary_data_size": len(content)},
        }
        output = {"name": question.output_name, "parameters": {"binary_data": True}}
        head = json.dumps({"inputs": [entry], "outputs": [output]}).encode()
        self._url = f"http://{stream.address}/v2/models/{question.model}{version}/infer"
        self._body = head + content
        self._headers = {_JSON_LENGTH: str(len(head)), "Content-Type": "application/octet-stream"}
        self._timeout = aiohttp.ClientTimeout(total=timeout)

    async def send(self, session: aiohttp.ClientSession) -> Answer:
        """Send it once. aiohttp repeats no POST."""
        try:
            async with session.post(
                self._url, data=self._body, headers=self._headers, timeout=self._timeout
            ) as response:
                content = await response.read()
        except TimeoutError as error:
            return Answer(failed=Outcome.LATE, error=_words(error))
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:
            return Answer(failed=Outcome.CUT, error=_words(error))
        if not response.ok:
            return Answer(
                failed=Outcome.REFUSED, error=f"{response.status}: {content.decode(errors='replace')}"
            )
        length = int(response.headers.get(_JSON_LENGTH, len(content)))
        version = json.loads(content[:length])["model_version"]
        return Answer(version=int(version), content=content[length:])


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
