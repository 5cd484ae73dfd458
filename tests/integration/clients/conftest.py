"""Clients connected to the real API server, directly or through a line that tests can cut."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING

import pytest

from triton_operator.clients.kube import Kube

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.integration.apiserver import ApiServer

    from triton_operator.clients.kube import Kind


class Line:
    """A TCP line to a server that can be cut and mended."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._pairs: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def mend(self) -> None:
        """Accept connections; the first time on a free port, then on the same."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """End all connections and refuse new ones."""
        if self._server:
            self._server.close()
        for pair in self._pairs:
            pair.cancel()
        await asyncio.gather(*self._pairs, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._pairs.add(task)
        ends = [writer]
        with contextlib.suppress(OSError, asyncio.CancelledError):
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
            ends.append(back)
            await asyncio.gather(self._pump(reader, back), self._pump(there, writer))
        for end in ends:
            end.transport.abort()
        self._pairs.discard(task)

    @staticmethod
    async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.transport.abort()


@pytest.fixture
async def kube(api_server: ApiServer) -> AsyncIterator[Kube]:
    async with await Kube.connect(kubeconfig=str(api_server.kubeconfig)) as kube:
        yield kube


@pytest.fixture
async def writes() -> list[tuple[str, str]]:
    return []


@pytest.fixture
async def counted(api_server: ApiServer, writes: list[tuple[str, str]]) -> AsyncIterator[Kube]:
    """A client whose writes are noted in `writes`."""

    def note(verb: str, kind: Kind) -> None:
        writes.append((verb, kind.kind))

    async with await Kube.connect(kubeconfig=str(api_server.kubeconfig), on_write=note) as kube:
        yield kube


@pytest.fixture
async def line(api_server: ApiServer) -> AsyncIterator[Line]:
    line = Line(int(api_server.url.rpartition(":")[2]))
    await line.mend()
    yield line
    await line.cut()


@pytest.fixture
async def far_kube(api_server: ApiServer, line: Line, tmp_path: Path) -> AsyncIterator[Kube]:
    """A client that reaches the API server over `line`."""
    config = json.loads(api_server.kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{line.port}"
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(json.dumps(config))
    async with await Kube.connect(kubeconfig=str(kubeconfig)) as kube:
        yield kube
