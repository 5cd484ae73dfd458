"""A server that answers as Triton does, or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING

import grpc
import grpc.aio
import numpy as np
from aiohttp import web
from tritonclient.grpc import service_pb2, service_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LENGTH = "Inference-Header-Content-Length"


class Answering:
    """Multiplies by 2 as version 1; notes every request, and over HTTP which connection it came on."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.connections: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.refuses = False
        self.cuts = False
        self.garbles = False
        self.http = ""
        self.grpc = ""

    async def over_http(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.asked.append(request.path)
        assert request.transport is not None
        self.connections.append(str(request.transport.get_extra_info("peername")))
        await self.gate.wait()
        if self.cuts:
            request.transport.abort()
        if self.refuses:
            return web.json_response({"error": "no"}, status=400)
        head = b"{" if self.garbles else json.dumps({"model_version": "1"}).encode()
        content = doubled(body[int(request.headers[LENGTH]) :])
        return web.Response(body=head + content, headers={LENGTH: str(len(head))})

    async def over_grpc(
        self, request: service_pb2.ModelInferRequest, context: grpc.aio.ServicerContext
    ) -> service_pb2.ModelInferResponse:
        self.asked.append(f"{request.model_name}/{request.model_version}")
        await self.gate.wait()
        if self.cuts:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        if self.refuses:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no")
        answer = service_pb2.ModelInferResponse(model_name=request.model_name, model_version="1")
        answer.raw_output_contents.append(doubled(request.raw_input_contents[0]))
        return answer


def doubled(content: bytes) -> bytes:
    return (np.frombuffer(content, np.float32) * 2).tobytes()


@contextlib.asynccontextmanager
async def answering() -> AsyncIterator[Answering]:
    """Yield a server that listens on both protocols."""
    found = Answering()
    app = web.Application()
    app.router.add_post("/{path:.*}", found.over_http)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server = grpc.aio.server()
    servicer = service_pb2_grpc.GRPCInferenceServiceServicer()
    servicer.ModelInfer = found.over_grpc
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    found.http = f"127.0.0.1:{runner.addresses[0][1]}"
    found.grpc = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield found
    finally:
        await server.stop(None)
        await runner.cleanup()
