"""The keeper: the one writer of a repository's trees, as a service independent of HTTP.

It holds the volume's lock for as long as it lives, and refuses to write on a volume that
belongs to another cluster or claim. See `api` for the requests.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
from typing import TYPE_CHECKING

from engine_builder import check, files, names, store, sweep, tree, volume
from engine_builder.compilers import monitor
from engine_builder.contract import (
    CheckRequest,
    CheckResult,
    Snapshot,
    SweepRequest,
    SweepResult,
    TreeManifest,
    TreeState,
    Volume,
)
from engine_builder.errors import Refused, is_full
from engine_builder.log import log
from engine_builder.volume import Layout, Owner

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LOCK_POLL_SECONDS = 1.0
_CHECKS_AT_ONCE = 4


@dataclasses.dataclass(frozen=True)
class NotReady:
    """Why the keeper must not write: a reason and a message for people."""

    reason: str
    message: str


class Keeper:
    """State of one keeper; every method may be called from any thread."""

    def __init__(self, root: Path, owner: Owner) -> None:
        self._layout = Layout(root)
        self._owner = owner
        self._writing = threading.Lock()
        self._checking = threading.BoundedSemaphore(_CHECKS_AT_ONCE)
        self._stopping = threading.Event()
        self._lock_fd: int | None = None
        self._abilities = Volume(0, 0, rename=False, links=False, fsync=False)
        self._not_ready: NotReady | None = NotReady("Starting", "the keeper is starting")

    def start(self) -> None:
        """Take the lock, however long another keeper holds it, and look the volume over."""
        while not self._stopping.is_set():
            try:
                if self._open():
                    return
            except OSError as error:
                self._change(NotReady("VolumeError", f"the volume fails: {error}"))
            self._stopping.wait(_LOCK_POLL_SECONDS)

    def stop(self) -> None:
        """Let go of the lock once the change under way is done."""
        self._stopping.set()
        with self._writing:
            if self._lock_fd is not None:
                os.close(self._lock_fd)
                self._lock_fd = None
            self._not_ready = NotReady("Stopping", "the keeper is stopping")

    def _open(self) -> bool:
        """Try once to become the volume's writer; True when there is nothing left to wait for."""
        self._layout.make()
        if self._lock_fd is None:
            self._lock_fd = volume.try_lock(self._layout)
        if self._lock_fd is None:
            self._change(NotReady("Locked", "another keeper holds the lock of the volume; waiting for it"))
            return False
        found = volume.claim(self._layout, self._owner)
        if found != self._owner:
            message = (
                f"the volume belongs to {found}, not to {self._owner}: give this repository its own volume"
            )
            self._change(NotReady("ForeignVolume", message))
            return True
        self._clean()
        self._abilities = volume.probe(self._layout)
        if not (self._abilities.rename and self._abilities.links):
            self._change(NotReady("VolumeUnfit", "the volume has no symbolic links or no atomic rename"))
            return True
        self._change(None)
        return True

    def _clean(self) -> None:
        for path in self._layout.staging.glob(f"{volume.KEEPER_STAGING}*"):
            files.delete(path)
        if removed := sweep.empty_trash(self._layout):
            log("trash emptied", removed=removed)

    def _change(self, to: NotReady | None) -> None:
        if to != self._not_ready:
            self._not_ready = to
            log("ready" if to is None else "not ready", **(dataclasses.asdict(to) if to else {}))

    def not_ready(self) -> NotReady | None:
        """Return why the keeper cannot write, or None when it can. A full volume is no reason."""
        if self._not_ready is None and self._lock_fd is not None:
            try:
                os.utime(self._lock_fd)
            except OSError as error:
                return NotReady("VolumeError", f"the volume cannot be written: {error.strerror}")
        return self._not_ready

    @contextlib.contextmanager
    def _writer(self) -> Iterator[None]:
        """Admit one change at a time, and none on a volume that is not ours."""
        with self._writing, _volume_errors():
            reason = self.not_ready()
            if reason is not None:
                raise Refused(503, reason.reason, reason.message)
            yield

    def snapshot(self) -> Snapshot:
        """Return everything on the volume."""
        able = self._abilities
        with _volume_errors():
            staging = sweep.list_staging(self._layout)
            told = {name: monitor.read(self._layout.staging / name) for name in staging}
            return Snapshot(
                volume=volume.measure(self._layout, rename=able.rename, links=able.links, fsync=able.fsync),
                engines=dict(store.entries(self._layout)),
                trees=tuple(tree.state(found) for found in tree.list_trees(self._layout)),
                staging=tuple(staging),
                progress={name: percent for name, percent in told.items() if percent is not None},
            )

    def read_tree(self, server: str, release: str) -> TreeState:
        """Return one tree as it is found."""
        with _volume_errors():
            return tree.state(self._tree(server, release))

    def apply_tree(self, server: str, release: str, manifest: TreeManifest) -> TreeState:
        """Make one tree equal to a manifest."""
        target = self._tree(server, release)
        with self._writer():
            if tree.apply(target, manifest):
                log("tree changed", server=server, release=release, revision=manifest.revision)
            return tree.state(target)

    def _tree(self, server: str, release: str) -> tree.Tree:
        if not names.is_server(server) or not names.is_release(release):
            raise Refused(
                400, "InvalidName", f"{server!r} is no server, or {release!r} no release like 26.07"
            )
        return tree.Tree(self._layout, server, release)

    def sweep(self, request: SweepRequest) -> SweepResult:
        """Remove what is not listed and not in use."""
        with self._writer():
            result = sweep.sweep(self._layout, request)
        if result.engines or result.trees or result.staging:
            log("swept", **dataclasses.asdict(result))
        return result

    def check(self, request: CheckRequest) -> CheckResult:
        """Compare a loaded version's answers with its engine's reference."""
        if not (names.is_model(request.model) and names.is_version(request.version)):
            raise Refused(
                400, "InvalidName", f"{request.model!r} is no model, or {request.version!r} no version"
            )
        self._require_engine(request.engine)
        if request.samples:
            self._require_engine(request.samples)
        with self._checking:
            result = check.check(self._layout, request)
        log("checked", **dataclasses.asdict(request), outcome=result.reason.value, message=result.message)
        return result

    def report(self, engine: str) -> bytes:
        """Return an engine's report.json."""
        self._require_engine(engine)
        with _volume_errors():
            content = files.read_file(self._layout.store / engine / store.REPORT_FILE)
        if content is None:
            raise Refused(404, "NotFound", f"store/{engine} holds no report")
        return content

    def _require_engine(self, engine: str) -> None:
        if not names.is_engine(engine):
            raise Refused(400, "InvalidName", f"{engine!r} is no engine's name")
        if store.read_manifest(self._layout, engine) is None:
            raise Refused(404, "EngineMissing", f"not in the store: {engine}")


@contextlib.contextmanager
def _volume_errors() -> Iterator[None]:
    """Tell a full volume (507) and a failing one (503) from an error of ours."""
    try:
        yield
    except OSError as error:
        status, reason = (507, "VolumeFull") if is_full(error) else (503, "VolumeError")
        log("volume failed", level="error", reason=reason, message=str(error))
        raise Refused(status, reason, f"{error.strerror or error}") from error
