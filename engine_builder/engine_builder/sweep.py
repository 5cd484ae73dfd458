"""Remove from the volume what nothing needs any more; never an engine that a tree names."""

from __future__ import annotations

import contextlib
import re
import time
from typing import TYPE_CHECKING

from engine_builder import faults, files, store, tree
from engine_builder.contract import SweepRequest, SweepResult
from engine_builder.volume import KEEPER_STAGING, Layout

if TYPE_CHECKING:
    from pathlib import Path

_ENGINE = re.compile(r"(?:^|/)store/([a-z0-9-]+)")
"""In a link however it is written: also one that somebody made by hand keeps its engine."""
_STAGING_SECONDS = 60.0
"""A younger staging directory may belong to a Job that the request's author has not seen yet."""


def sweep(layout: Layout, request: SweepRequest, *, now: float | None = None) -> SweepResult:
    """Remove trees, then engines, then staging directories that are not listed.

    Raises:
        OSError: the volume failed; sweeping again goes on.
    """
    trees = _sweep_trees(layout, set(request.trees))
    keep = set(request.engines) | named_engines(layout)
    engines = [name for name in store.list_engines(layout) if name not in keep]
    for name in engines:
        files.discard(layout.store / name, trash=layout.trash)
        faults.point("sweep.engine", name)
    now = time.time() if now is None else now
    staging = [
        n for n in list_staging(layout) if n not in request.staging and _is_old(layout.staging / n, now)
    ]
    for name in staging:
        files.discard(layout.staging / name, trash=layout.trash)
        faults.point("sweep.staging", name)
    return SweepResult(engines=tuple(engines), trees=tuple(trees), staging=tuple(staging))


def _sweep_trees(layout: Layout, keep: set[str]) -> list[str]:
    gone = [found for found in tree.list_trees(layout) if f"{found.server}/{found.release}" not in keep]
    for found in gone:
        for path in (found.root, found.applied):  # the manifest last: it finishes an interrupted sweep
            if path.exists() or path.is_symlink():
                files.discard(path, trash=layout.trash)
                faults.point("sweep.tree", path.name)
        with contextlib.suppress(OSError):  # another release of the server lies there
            found.root.parent.rmdir()
            faults.point("sweep.server", found.server)
    return [f"{found.server}/{found.release}" for found in gone]


def named_engines(layout: Layout) -> set[str]:
    """Return every engine that a link below `servers/` or an applied manifest names."""
    named: set[str] = set()
    for found in tree.list_trees(layout):
        applied = tree.read_applied(found)
        for model in applied.models if applied else ():
            named.update(model.versions.values())
    for path in layout.servers.rglob("*"):
        if path.is_symlink() and (engine := _ENGINE.search(str(path.readlink()))):
            named.add(engine[1])
    return named


def list_staging(layout: Layout) -> list[str]:
    """Return the jobs' staging directories; the keeper's own are not among them."""
    with contextlib.suppress(FileNotFoundError):
        found = sorted(path.name for path in layout.staging.iterdir())
        return [name for name in found if not name.startswith(KEEPER_STAGING)]
    return []


def _is_old(path: Path, now: float) -> bool:
    with contextlib.suppress(FileNotFoundError):
        newest = max([path.lstat().st_mtime, *(p.lstat().st_mtime for p in path.rglob("*"))])
        return now - newest > _STAGING_SECONDS
    return False


def empty_trash(layout: Layout) -> int:
    """Delete what an interrupted removal left; returns how many things."""
    left = sorted(layout.trash.iterdir())
    for path in left:
        files.delete(path)
        faults.point("sweep.trash", path.name)
    return len(left)
