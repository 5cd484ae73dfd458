"""Sizes for people, and steady ones, so that a volume in use isn't a status write a second."""

from __future__ import annotations

STEP = 0.01
"""Share of the volume by which the free space must change before the status says so."""

_UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50}


def human(size: int) -> str:
    """Return bytes as Kubernetes writes quantities, with one digit after the point at most."""
    best = ("", 1)
    for unit, factor in _UNITS.items():
        if size >= factor:
            best = (unit, factor)
    unit, factor = best
    return f"{size / factor:.1f}".removesuffix(".0") + unit


def parse(text: str) -> int:
    """Return the bytes of what `human` wrote."""
    for unit, factor in _UNITS.items():
        if text.endswith(unit):
            return round(float(text.removesuffix(unit)) * factor)
    return int(text)


def steady(size: int, *, of: int, shown: str | None) -> str:
    """Return the free space to show: what is shown already, unless it is off by a step of the whole."""
    if shown is not None and abs(parse(shown) - size) < STEP * of:
        return shown
    return human(size)
