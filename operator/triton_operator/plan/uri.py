"""Source URIs: what a pod must mount to read them."""

from __future__ import annotations

import dataclasses
from urllib.parse import unquote, urlsplit

from triton_operator.plan.outcome import OutcomeError, Stalled


@dataclasses.dataclass(frozen=True)
class ClaimSource:
    """A path on a PersistentVolumeClaim of the model's namespace."""

    claim: str
    path: str


def parse(uri: str) -> ClaimSource:
    """Read a source URI.

    Raises:
        OutcomeError: Stalled with `UnsupportedSource`, when no job of ours can read it.
    """
    parts = urlsplit(uri)
    if parts.scheme != "pvc" or not parts.netloc or not parts.path.strip("/"):
        message = f"source {uri!r}: write pvc://<claim>/<path to the .onnx file>"
        raise OutcomeError(Stalled("UnsupportedSource", message))
    return ClaimSource(claim=parts.netloc, path=unquote(parts.path).lstrip("/"))
