"""How the API server's answers become objects and errors."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from triton_operator.clients.objects import Conflict, Kind, Object, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import aiohttp


def typed(kind: Kind, body: Object) -> Object:
    """Fill in apiVersion and kind, which the items of a list lack."""
    return {"apiVersion": kind.api_version, "kind": kind.kind, **body}


def decode(data: bytes) -> Object:
    """Read an answer; a proxy in between may have sent anything."""
    try:
        answer = json.loads(data)
    except ValueError:
        return {"message": data[:200].decode(errors="replace")}
    return answer if isinstance(answer, dict) else {"message": str(answer)[:200]}


async def lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Split a stream into lines of any length (aiohttp's own readline has a limit)."""
    pending = bytearray()
    async for chunk in response.content.iter_any():
        pending += chunk
        if b"\n" in chunk:
            *complete, rest = bytes(pending).split(b"\n")
            pending = bytearray(rest)
            for line in complete:
                if line:
                    yield line


def replaced(kind: Kind, path: str) -> Conflict:
    """Return the error for an object that has another UID than the one that was meant."""
    message = f"the {kind.kind} is gone, or was replaced by another of its name"
    return Conflict(status=409, reason="Conflict", message=message, request=path)


def unreachable(what: str, error: BaseException) -> Unavailable:
    """Return the error for a request that got no answer."""
    reason = "Timeout" if isinstance(error, TimeoutError) else "Unreachable"
    message = str(error) or type(error).__name__
    return Unavailable(status=0, reason=reason, message=message, request=what)
