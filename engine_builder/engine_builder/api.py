"""The keeper's HTTP API: routes, signatures, limits.

    GET  /healthz                              200
    GET  /readyz                               200, or 503 with the reason
    GET  /v1/snapshot                          Snapshot
    GET  /v1/trees/<server>/<release>          TreeState
    PUT  /v1/trees/<server>/<release>          TreeManifest → TreeState
    POST /v1/sweep                             SweepRequest → SweepResult
    POST /v1/checks                            CheckRequest → CheckResult
    GET  /v1/engines/<engine>/report           report.json

Everything below /v1 wants `Authorization: Bearer <token>` (see `tokens`). Any other answer
than 2xx has a `KeeperError` as its body.
"""

from __future__ import annotations

import re
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

from engine_builder import tokens
from engine_builder.contract import CheckRequest, KeeperError, SweepRequest, TreeManifest, from_json, to_json
from engine_builder.errors import Refused
from engine_builder.keeper import Keeper
from engine_builder.log import log

MOST_BODY_BYTES = 32 << 20
_TIMEOUT_SECONDS = 30.0
_CONNECTIONS = 64

_T = TypeVar("_T")
_Route = Callable[[Keeper, tuple[str, ...], bytes], bytes]


def _json(value: object) -> bytes:
    return to_json(value).encode()


def _read(kind: type[_T], body: bytes) -> _T:
    try:
        return from_json(kind, body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, "InvalidBody", str(error)) from error


_ROUTES: tuple[tuple[str, re.Pattern[str], _Route], ...] = (
    ("GET", re.compile(r"/v1/snapshot"), lambda k, _n, _b: _json(k.snapshot())),
    ("GET", re.compile(r"/v1/trees/([^/]+)/([^/]+)"), lambda k, n, _b: _json(k.read_tree(*n))),
    (
        "PUT",
        re.compile(r"/v1/trees/([^/]+)/([^/]+)"),
        lambda k, n, b: _json(k.apply_tree(n[0], n[1], _read(TreeManifest, b))),
    ),
    ("POST", re.compile(r"/v1/sweep"), lambda k, _n, b: _json(k.sweep(_read(SweepRequest, b)))),
    ("POST", re.compile(r"/v1/checks"), lambda k, _n, b: _json(k.check(_read(CheckRequest, b)))),
    ("GET", re.compile(r"/v1/engines/([^/]+)/report"), lambda k, n, _b: k.report(*n)),
)


class KeeperServer(ThreadingHTTPServer):
    """Serve one keeper; connections are bounded and threads end with the process."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], *, keeper: Keeper, key: bytes) -> None:
        self.keeper = keeper
        self.key = key
        self._slots = threading.BoundedSemaphore(_CONNECTIONS)
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread, or close it when there are too many."""
        if not self._slots.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Give the slot back when the connection ends."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Log what is an error of ours; a client that went away is no event."""
        if not isinstance(sys.exc_info()[1], OSError):
            log("internal error", level="error", traceback=traceback.format_exc())


class Handler(BaseHTTPRequestHandler):
    """One connection of the operator or the kubelet."""

    protocol_version = "HTTP/1.1"
    timeout = _TIMEOUT_SECONDS
    server: KeeperServer

    def do_GET(self) -> None:
        """Answer health questions without, all others with a signature."""
        if self.path == "/healthz":
            self._send(200, b"ok\n", kind="text/plain")
        elif self.path == "/readyz":
            self._ready()
        else:
            self._serve()

    def do_PUT(self) -> None:
        """Answer a signed change."""
        self._serve()

    def do_POST(self) -> None:
        """Answer a signed question or change."""
        self._serve()

    def _ready(self) -> None:
        reason = self.server.keeper.not_ready()
        if reason is None:
            self._send(200, b"ok\n", kind="text/plain")
        else:
            self._send(503, _json(KeeperError(reason.reason, reason.message)))

    def _serve(self) -> None:
        try:
            self._send(200, self._answer())
        except Refused as error:
            self._send(error.status, _json(KeeperError(error.reason, error.message)))
        except TimeoutError:
            self.close_connection = True
        except Exception as error:  # noqa: BLE001 - the border of the process
            log("internal error", level="error", path=self.path, traceback=traceback.format_exc())
            self._send(500, _json(KeeperError("InternalError", f"{type(error).__name__}: {error}")))

    def _answer(self) -> bytes:
        body = self._body()
        self._authenticate(body)
        for method, pattern, route in _ROUTES:
            found = pattern.fullmatch(self.path)
            if found and method == self.command:
                return route(self.server.keeper, found.groups(), body)
        raise Refused(404, "NotFound", f"no such request: {self.command} {self.path}")

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not re.fullmatch(r"[0-9]{1,12}", length):
            self.close_connection = True
            raise Refused(411, "LengthRequired", "send a Content-Length")
        if int(length) > MOST_BODY_BYTES:
            self.close_connection = True
            raise Refused(413, "TooLarge", f"a body may have {MOST_BODY_BYTES} bytes")
        body = self.rfile.read(int(length))
        if len(body) != int(length):
            self.close_connection = True
            raise Refused(400, "InvalidBody", "the body ends early")
        return body

    def _authenticate(self, body: bytes) -> None:
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        problem: str | None = "send Authorization: Bearer <token>"
        if scheme == "Bearer":
            problem = tokens.verify_request(
                self.server.key, token.strip(), method=self.command, path=self.path, body=body
            )
        if problem is not None:
            raise Refused(401, "Unauthorized", problem)

    def _send(self, status: int, body: bytes, *, kind: str = "application/json") -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            if self.close_connection:
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)
        except OSError:  # the client went away
            self.close_connection = True

    def version_string(self) -> str:
        """Say no more than needed."""
        return "engine-builder"

    def log_message(self, *_args: object) -> None:
        """Log transitions (see `keeper`), not requests."""
