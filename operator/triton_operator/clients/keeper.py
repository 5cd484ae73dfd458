"""The keeper of one repository over HTTP: every request is signed for exactly its content.

KeeperCallError
├── KeeperUnreachable    nobody answered, or not in the keeper's words: ask again
└── KeeperRefused        the keeper answered no, with a reason
"""

from __future__ import annotations

import json
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
from yarl import URL

from engine_builder import faults
from engine_builder.contract import (
    CheckRequest,
    CheckResult,
    KeeperError,
    Snapshot,
    SweepRequest,
    SweepResult,
    TreeManifest,
    TreeState,
    from_json,
    to_json,
)
from engine_builder.tokens import sign_request
from triton_operator.clients.errors import ClientError

REQUEST_SECONDS = 30.0
SWEEP_SECONDS = 300.0
"""A sweep removes directories of any size."""

_T = TypeVar("_T")


class KeeperCallError(ClientError):
    """A call to a keeper failed."""


class KeeperUnreachable(KeeperCallError):
    """The keeper did not answer, or something else answered in its place."""

    def __init__(self, message: str) -> None:
        """Keep what happened."""
        super().__init__(message)
        self.message = message


class KeeperRefused(KeeperCallError):
    """The keeper will not do it; `reason` is one word, `message` a sentence."""

    def __init__(self, reason: str, message: str, *, status: int) -> None:
        """Keep the keeper's words and the HTTP status."""
        super().__init__(f"{reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message

    @property
    def passing(self) -> bool:
        """Return whether the same request may work later: it starts, waits for a lock, has no space."""
        return self.status >= 500  # noqa: PLR2004 - HTTP server errors


class Keeper:
    """A keeper at `host:port`, and the key that it knows us by."""

    def __init__(self, session: aiohttp.ClientSession, address: str, key: bytes) -> None:
        """Use a session that the caller closes; one serves all keepers."""
        self._session = session
        self._base = f"http://{address}"
        self._key = key

    async def snapshot(self) -> Snapshot:
        """Return everything that lies on the volume."""
        return _read(Snapshot, await self._send("GET", "/v1/snapshot"))

    async def put_tree(self, server: str, release: str, manifest: TreeManifest) -> TreeState:
        """Make a server's tree of one release equal to the manifest."""
        path = f"/v1/trees/{quote(server, safe='')}/{quote(release, safe='')}"
        return _read(TreeState, await self._send("PUT", path, manifest))

    async def sweep(self, request: SweepRequest) -> SweepResult:
        """Remove what is neither named nor in use."""
        answer = await self._send("POST", "/v1/sweep", request, seconds=SWEEP_SECONDS)
        faults.point("keeper.sweep")
        return _read(SweepResult, answer)

    async def check(self, request: CheckRequest) -> CheckResult:
        """Compare a loaded version's answers with its source's own."""
        seconds = request.timeout_seconds + REQUEST_SECONDS
        return _read(CheckResult, await self._send("POST", "/v1/checks", request, seconds=seconds))

    async def report(self, engine: str) -> dict[str, Any]:
        """Return the full report that a job left in the store."""
        answer = await self._send("GET", f"/v1/engines/{quote(engine, safe='')}/report")
        try:
            report = json.loads(answer)
        except ValueError as error:
            raise KeeperUnreachable(f"the keeper's report is not JSON: {error}") from error
        if not isinstance(report, dict):
            raise KeeperUnreachable("the keeper's report is not a JSON object")
        return report

    async def _send(
        self, method: str, path: str, value: Any = None, *, seconds: float = REQUEST_SECONDS
    ) -> bytes:
        body = b"" if value is None else to_json(value).encode()
        headers = {"Authorization": f"Bearer {sign_request(self._key, method=method, path=path, body=body)}"}
        if body:
            headers["Content-Type"] = "application/json"
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=5)
        # encoded: the path on the wire must be the one that was signed
        url = URL(self._base + path, encoded=True)
        try:
            async with self._session.request(
                method, url, data=body, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                answer = await response.read()
        except TimeoutError as error:
            raise KeeperUnreachable(f"the keeper did not answer {method} {path} in {seconds:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise KeeperUnreachable(f"the keeper does not answer: {error or type(error).__name__}") from error
        if not 200 <= response.status < 300:  # noqa: PLR2004 - HTTP success
            raise _refusal(response.status, answer)
        return answer


def _read(kind: type[_T], answer: bytes) -> _T:
    try:
        return from_json(kind, answer)
    except ValueError as error:
        raise KeeperUnreachable(f"the keeper's answer can't be read: {error}") from error


def _refusal(status: int, answer: bytes) -> KeeperCallError:
    try:
        error = from_json(KeeperError, answer)
    except ValueError:
        text = answer[:200].decode(errors="replace")
        return KeeperUnreachable(f"HTTP {status}, which is not the keeper's way to refuse: {text}")
    return KeeperRefused(error.reason, error.message, status=status)
