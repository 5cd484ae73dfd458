"""Source URIs: what a pod must mount to read them, and the host that they name."""

from __future__ import annotations

import dataclasses
from urllib.parse import unquote, urlsplit

from triton_operator.plan.outcome import OutcomeError, Stalled
from triton_operator.resources.version import SOURCE_URI_FORMS

_HTTPS_PORT = 443
_REMOTE = frozenset({"s3", "gs", "az", "https", "oci"})
_WITH_HOST = frozenset({"https", "oci"})


@dataclasses.dataclass(frozen=True)
class ClaimSource:
    """A path on a PersistentVolumeClaim of the model's namespace."""

    claim: str
    path: str


@dataclasses.dataclass(frozen=True)
class RemoteSource:
    """A source from elsewhere; `host` is None where a Secret or the cloud decides it."""

    scheme: str
    host: str | None = None
    port: int = _HTTPS_PORT


def parse(uri: str) -> ClaimSource | RemoteSource:
    """Read a source URI.

    Raises:
        OutcomeError: Stalled with `UnsupportedSource`, when no job of ours can read it.
    """
    try:
        parts = urlsplit(uri)
        found = _claim(parts.netloc, parts.path) if parts.scheme == "pvc" else None
        if found is None and parts.scheme in _REMOTE and parts.netloc and parts.path.strip("/"):
            return _remote(parts.scheme, parts.hostname, parts.port)
    except ValueError:  # a port that is no number, say
        found = None
    if found is None:
        raise OutcomeError(Stalled("UnsupportedSource", f"source {uri!r}: write {SOURCE_URI_FORMS}"))
    return found


def _claim(claim: str, path: str) -> ClaimSource | None:
    return ClaimSource(claim=claim, path=unquote(path).lstrip("/")) if claim and path.strip("/") else None


def _remote(scheme: str, host: str | None, port: int | None) -> RemoteSource:
    if scheme not in _WITH_HOST:
        return RemoteSource(scheme)
    return RemoteSource(scheme, host, _HTTPS_PORT if port is None else port)
