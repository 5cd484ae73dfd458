"""Health and metrics over HTTP: `/healthz`, `/readyz`, `/metrics`.

They run on the operator's own event loop, so an answer at all shows that it isn't stuck.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

if TYPE_CHECKING:
    from triton_operator.metrics import Metrics

Check = Callable[[], str | None]
"""Returns what is wrong, or None."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serve(
    metrics: Metrics,
    *,
    listen: str,
    healthy: Mapping[str, Check] | None = None,
    ready: Mapping[str, Check] | None = None,
) -> AsyncIterator[int]:
    """Serve while the context is open; yields the port (`listen` is `host:port`, port 0 any).

    `healthy` and `ready` name the checks behind `/healthz` and `/readyz`: 503 and what is wrong
    as soon as one of them finds something.
    """
    app = web.Application()
    app.router.add_get("/healthz", _answer(healthy or {}))
    app.router.add_get("/readyz", _answer(ready or {}))
    app.router.add_get("/metrics", _metrics(metrics))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        host, _, port = listen.rpartition(":")
        await web.TCPSite(runner, host.strip("[]") or None, int(port)).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def _answer(checks: Mapping[str, Check]) -> Handler:
    async def handle(_request: web.Request) -> web.Response:
        wrong = {name: problem for name, check in checks.items() if (problem := check())}
        if not wrong:
            return web.Response(text="ok\n")
        text = "".join(f"{name}: {problem}\n" for name, problem in wrong.items())
        return web.Response(status=503, text=text)

    return handle


def _metrics(metrics: Metrics) -> Handler:
    async def handle(_request: web.Request) -> web.Response:
        return web.Response(body=metrics.render(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return handle
