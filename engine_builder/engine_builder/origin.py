"""The prepared engine that another is made from: found whole, and its answers taken over."""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING

from engine_builder import files, store
from engine_builder.contract import Reason, StoreManifest
from engine_builder.errors import JobError

if TYPE_CHECKING:
    from pathlib import Path

    from engine_builder.volume import Layout


def find(layout: Layout, engine: str) -> StoreManifest:
    """Return the manifest of a prepared engine.

    Raises:
        JobError: `EngineMissing`.
    """
    found = store.read_manifest(layout, engine)
    if found is None or not store.is_whole(layout, found) or store.MODEL_FILE not in found.files:
        raise JobError(
            Reason.ENGINE_MISSING,
            f"store/{engine} is not there or not whole, or holds no ONNX model: delete its Engine, "
            "and it is prepared anew",
        )
    return found


def share_answers(layout: Layout, prepared: StoreManifest, place: Path) -> dict[str, str]:
    """Give the source's answers to another engine in `place`; returns the files with their digests."""
    digest = prepared.files.get(store.REFERENCE_FILE)
    if digest is None:
        return {}
    _link(layout.store / prepared.engine / store.REFERENCE_FILE, place / store.REFERENCE_FILE)
    return {store.REFERENCE_FILE: digest}


def _link(source: Path, target: Path) -> None:
    """Give a file of the store a second name, or copy it where the volume cannot."""
    with contextlib.suppress(OSError):
        os.link(source, target, follow_symlinks=False)
        return
    shutil.copyfile(source, target)
    target.chmod(files.FILE_MODE)
