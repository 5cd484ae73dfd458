"""Whether an object still is what it should be: every value that we set, and no more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from triton_operator.plan import names

HASH_ANNOTATION = f"{names.GROUP}/applied"


def stamped(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the manifest with a digest of itself, by which a field that we drop later is noticed."""
    metadata = dict(manifest["metadata"])
    annotations = {**(metadata.get("annotations") or {}), HASH_ANNOTATION: names.digest(manifest)[:16]}
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}


def holds(desired: Any, live: Any) -> bool:
    """Tell whether a live value contains the desired one.

    Maps may hold more, since the API server fills in defaults; lists must have the same length.
    Numbers and their text are the same, as quantities and ports go.
    """
    if isinstance(desired, Mapping):
        if not desired and live is None:
            return True
        return isinstance(live, Mapping) and all(holds(v, live.get(k)) for k, v in desired.items())
    if isinstance(desired, Sequence) and not isinstance(desired, str):
        if not desired and live is None:
            return True
        same_length = isinstance(live, Sequence) and len(live) == len(desired)
        return same_length and all(holds(d, v) for d, v in zip(desired, live, strict=True))
    return bool(desired == live) or (live is None and desired in ("", False, 0)) or str(desired) == str(live)
