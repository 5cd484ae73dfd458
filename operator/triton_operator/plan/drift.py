"""Whether an object still is what it should be: every value that we set, and no more."""

from __future__ import annotations

import decimal
import re
from collections.abc import Mapping, Sequence
from typing import Any

from triton_operator.plan import names

_SUFFIXES = {"": 1} | {
    suffix: decimal.Decimal(factor)
    for suffix, factor in (
        *zip("num", ("1e-9", "1e-6", "1e-3"), strict=True),
        *zip("kMGTPE", ("1e3", "1e6", "1e9", "1e12", "1e15", "1e18"), strict=True),
        *((f"{letter}i", 1024 ** (power + 1)) for power, letter in enumerate("KMGTPE")),
    )
}
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)([numkMGTPE]|[KMGTPE]i|)")

HASH_ANNOTATION = f"{names.GROUP}/applied"


_WHOLE = frozenset({"selector", "nodeSelector", "matchLabels"})
"""Maps that the API server takes as one value, so that an apply replaces them whole."""


def stamped(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the manifest with a digest of itself, by which a field that we drop later is noticed."""
    metadata = dict(manifest["metadata"])
    annotations = {**(metadata.get("annotations") or {}), HASH_ANNOTATION: names.digest(manifest)[:16]}
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}


def holds(desired: Any, live: Any) -> bool:
    """Tell whether a live value contains the desired one.

    Maps may hold more, since the API server fills in defaults, but for those that select: one key
    more selects something else. Lists must have the same length.
    Numbers and their text are the same, as quantities and ports go.
    """
    if not desired and live is None:
        return True
    if isinstance(desired, Mapping):
        return isinstance(live, Mapping) and _map_holds(desired, live)
    if isinstance(desired, Sequence) and not isinstance(desired, str):
        same_length = isinstance(live, Sequence) and len(live) == len(desired)
        return same_length and all(holds(d, v) for d, v in zip(desired, live, strict=True))
    if desired == live or str(desired) == str(live):
        return True
    wanted = amount(desired)
    return wanted is not None and wanted == amount(live)


def _map_holds(desired: Mapping[str, Any], live: Mapping[str, Any]) -> bool:
    whole = _WHOLE & desired.keys() & live.keys()
    same = all(set(live[key]) == set(desired[key]) for key in whole)
    return same and all(holds(value, live.get(key)) for key, value in desired.items())


def amount(value: Any) -> decimal.Decimal | None:
    """Return what a quantity amounts to: the API server writes 0.5 as 500m and 1024Mi as 1Gi."""
    match = _QUANTITY.fullmatch(str(value))
    return decimal.Decimal(match[1]) * _SUFFIXES[match[2]] if match else None
