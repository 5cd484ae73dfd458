"""A client of the Kubernetes API from the standard library."""

import json
import re
import ssl
import urllib.error
import urllib.request
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any

FIELD_MANAGER = "localcluster"
TIMEOUT_SECONDS = 10.0
WATCH_SECONDS = 300


class ApiError(Exception):
    """The API server did not answer, or refused.

    Attributes:
        status: HTTP status; 0 without an answer.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Api:
    """Requests as the user of a kubeconfig that this program wrote."""

    server: str
    token: str
    context: ssl.SSLContext

    @classmethod
    def from_kubeconfig(cls, path: Path) -> "Api":
        """Read our own form of kubeconfig; the standard library has no YAML."""
        fields = dict(re.findall(r"(server|token|certificate-authority-data): (\S+)", path.read_text()))
        authority = b64decode(fields["certificate-authority-data"]).decode()
        return cls(fields["server"], fields["token"], ssl.create_default_context(cadata=authority))

    def get(self, path: str) -> Any:
        """Read an object or a list."""
        return self._json("GET", path)

    def create(self, path: str, body: object) -> Any:
        """Post an object to its collection."""
        return self._json("POST", path, body)

    def delete(self, path: str) -> Any:
        """Delete an object."""
        return self._json("DELETE", path)

    def apply(self, path: str, body: object) -> Any:
        """Apply an object on the server, taking over its fields."""
        query = f"?fieldManager={FIELD_MANAGER}&force=true"
        return self._json("PATCH", path + query, body, content_type="application/apply-patch+yaml")

    def merge(self, path: str, body: object) -> Any:
        """Merge a patch into an object."""
        return self._json("PATCH", path, body, content_type="application/merge-patch+json")

    def watch(self, path: str) -> Iterator[Any]:
        """Yield events of a collection until the server ends the watch."""
        query = f"?watch=1&timeoutSeconds={WATCH_SECONDS}"
        try:
            with self._open("GET", path + query, timeout=WATCH_SECONDS + TIMEOUT_SECONDS) as answer:
                for line in answer:
                    yield json.loads(line)
        except (OSError, HTTPException) as broken:
            raise ApiError(0, str(broken)) from broken

    def _json(
        self, method: str, path: str, body: object = None, *, content_type: str = "application/json"
    ) -> Any:
        try:
            with self._open(method, path, body, content_type=content_type) as answer:
                return json.loads(answer.read())
        except (OSError, HTTPException) as broken:
            raise ApiError(0, f"{method} {path}: {broken}") from broken

    def _open(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        content_type: str = "application/json",
        timeout: float = TIMEOUT_SECONDS,
    ) -> HTTPResponse:
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": content_type}
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310 - the address is the cluster's own
            self.server + path, data=content, headers=headers, method=method
        )
        # Without an empty ProxyHandler the host's http_proxy would be asked for an address of the bridge.
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=self.context)
        )
        try:
            answer: HTTPResponse = opener.open(request, timeout=timeout)
        except urllib.error.HTTPError as refused:
            detail = refused.read().decode(errors="replace")
            raise ApiError(refused.code, f"{method} {path}: {refused.code} {detail}") from refused
        return answer
