"""What the API server's audit log says that somebody did."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

READING = frozenset({"get", "list", "watch"})


@dataclasses.dataclass(frozen=True)
class Request:
    """One request for a resource."""

    time: str
    verb: str
    group: str
    resource: str
    """With its subresource, as RBAC writes it: `inferencemodels/status`."""
    namespace: str
    name: str
    status: int
    user: str
    refused: bool
    """Whether a right was missing; a namespace on its way out takes nothing new for another reason."""

    @property
    def writes(self) -> bool:
        """Tell whether it was to change something; a question about rights is a create that keeps nothing."""
        return self.verb not in READING and self.group != "authorization.k8s.io"

    def __str__(self) -> str:
        """Say it in a line, for messages."""
        place = "/".join(filter(None, (self.namespace, self.name)))
        return f"{self.time} {self.verb} {self.group or 'core'}/{self.resource} {place} → {self.status}"


class AuditLog:
    """The log from a moment on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._start = 0
        self._inode = path.stat().st_ino

    @classmethod
    def from_now(cls, path: Path) -> AuditLog:
        """Leave out what stands in the log already."""
        log = cls(path)
        log._start = path.stat().st_size
        return log

    def requests(self, *users: str) -> list[Request]:
        """Return the requests of these users, the oldest first."""
        return list(self._requests(users))

    def writes(self, *users: str) -> list[Request]:
        """Return the requests that were to change something, but for the renewal of Leases."""
        return [each for each in self._requests(users) if each.writes and each.resource != "leases"]

    def _requests(self, users: Iterable[str]) -> Iterator[Request]:
        marks = [f'"username":"{user}"'.encode() for user in users]
        with self._path.open("rb") as log:
            # a log that was rotated meanwhile is read from its beginning
            log.seek(self._start if self._path.stat().st_ino == self._inode else 0)
            for line in log:
                if line.endswith(b"\n") and any(mark in line for mark in marks):
                    found = _request(json.loads(line))
                    if found is not None:
                        yield found


def _request(entry: dict[str, Any]) -> Request | None:
    """Return what an entry says; None for URLs without a resource, and for the start of a watch."""
    reference = entry.get("objectRef") or {}
    if entry["stage"] not in ("ResponseComplete", "ResponseStarted") or not reference.get("resource"):
        return None
    if entry["stage"] == "ResponseStarted" and entry["verb"] != "watch":
        return None
    parts = (reference["resource"], reference.get("subresource"))
    return Request(
        time=entry["stageTimestamp"],
        verb=entry["verb"],
        group=reference.get("apiGroup", ""),
        resource="/".join(filter(None, parts)),
        namespace=reference.get("namespace", ""),
        name=reference.get("name", ""),
        status=(entry.get("responseStatus") or {}).get("code", 0),
        user=entry["user"]["username"],
        refused=(entry.get("annotations") or {}).get("authorization.k8s.io/decision") == "forbid",
    )
