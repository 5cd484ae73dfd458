"""What may go from a volume: all that no object stands for any more."""

from __future__ import annotations

from collections.abc import Iterable

from engine_builder.contract import Snapshot, SweepRequest


def keep(
    *, engines: Iterable[str], servers: Iterable[tuple[str, str]], staging: Iterable[str]
) -> SweepRequest:
    """Return the request that keeps these engines, trees (server, release) and staging directories."""
    return SweepRequest(
        engines=tuple(sorted(set(engines))),
        trees=tuple(sorted({f"{server}/{release}" for server, release in servers})),
        staging=tuple(sorted(set(staging))),
    )


def is_needed(request: SweepRequest, found: Snapshot) -> bool:
    """Tell whether the volume holds something that the request would remove."""
    named = {
        engine for tree in found.trees for versions in tree.models.values() for engine in versions.values()
    }
    stray_engines = set(found.engines) - set(request.engines) - named
    stray_trees = {f"{tree.server}/{tree.release}" for tree in found.trees} - set(request.trees)
    return bool(stray_engines or stray_trees or set(found.staging) - set(request.staging))
