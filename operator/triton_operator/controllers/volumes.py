"""What the keepers say about their volumes, as last heard."""

from __future__ import annotations

import collections
import dataclasses
import time
from collections.abc import Callable, Mapping

from engine_builder import faults
from engine_builder.contract import Snapshot, TreeManifest, TreeState
from triton_operator.clients.keeper import Keeper

Place = tuple[str, str]
"""Namespace and name of a ModelRepository."""

Servers = frozenset[str]
Told = Callable[[Place, Servers | None], None]
"""Is told that a volume has changed. With servers: no more than that their trees have other versions,
and no engine has come to the store, left it, or left all trees; None: look at everything."""

PROGRESS_SECONDS = 5.0
"""What builds say of their progress is taken over no more often: every engine's status follows it."""


class Volumes:
    """The keeper of every repository, and its latest snapshot.

    `on_change` is told when engines or trees of a volume have changed.
    """

    def __init__(self, on_change: Told, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._keepers: dict[Place, Keeper] = {}
        self._snapshots: dict[Place, Snapshot] = {}
        self._tried: set[Place] = set()
        self._writes: collections.Counter[Place] = collections.Counter()
        self._looks: collections.Counter[Place] = collections.Counter()
        self._latest: collections.Counter[Place] = collections.Counter()  # the look that the snapshot is of
        self._on_change = on_change
        self._clock = clock
        self._progress: dict[Place, tuple[float, Mapping[str, int]]] = {}  # when it was taken over, and what

    def tried(self, place: Place) -> bool:
        """Tell whether a volume was looked at, with or without success, since this process began."""
        return place in self._tried

    def note_tried(self, place: Place) -> None:
        """Remember that a volume was looked at; whoever waited for that is told."""
        if place not in self._tried:
            self._tried.add(place)
            self._on_change(place, None)

    def connect(self, place: Place, keeper: Keeper) -> None:
        """Remember who keeps a volume now."""
        self._keepers[place] = keeper

    def forget(self, place: Place) -> None:
        """Forget a repository that is gone, or whose keeper doesn't answer."""
        self._keepers.pop(place, None)
        self._progress.pop(place, None)
        if self._snapshots.pop(place, None) is not None:
            self._on_change(place, None)

    def keeper(self, place: Place) -> Keeper | None:
        """Return the keeper of a repository, or None when there is none to talk to."""
        return self._keepers.get(place)

    def snapshot(self, place: Place) -> Snapshot | None:
        """Return what lay on the volume at the last look."""
        return self._snapshots.get(place)

    def progress(self, place: Place) -> Mapping[str, int]:
        """Return how far builds are, in percent by the UID of their pod."""
        return self._progress.get(place, (0.0, {}))[1]

    async def refresh(self, place: Place) -> Snapshot | None:
        """Ask the keeper what lies on the volume now.

        Looks overlap, and the answer to an earlier one may come last: it is not taken over then,
        or a tree that was seen already would be gone for a moment.

        Raises:
            KeeperCallError: it didn't answer, or refused.
        """
        keeper = self._keepers.get(place)
        if keeper is None:
            return None
        while True:
            writes = self._writes[place]
            self._looks[place] += 1
            look = self._looks[place]
            found = await keeper.snapshot()
            if writes != self._writes[place]:  # it may show a tree as it was before our write
                continue
            if look < self._latest[place]:
                return self._snapshots.get(place)
            self._latest[place] = look
            self._replace(place, found)
            return found

    async def put_tree(
        self, place: Place, *, server: str, release: str, manifest: TreeManifest
    ) -> TreeState | None:
        """Make a server's tree equal to the manifest.

        Raises:
            KeeperCallError: the keeper didn't answer, or refused.
        """
        keeper, known = self._keepers.get(place), self._snapshots.get(place)
        if keeper is None or known is None:
            return None
        self._writes[place] += 1
        try:
            state = await keeper.put_tree(server, release, manifest)
        finally:
            self._writes[place] += 1
        if state != tree_of(known, server=server, release=release):
            faults.point("keeper.tree", server)
        latest = self._snapshots.get(place, known)
        others = tuple(t for t in latest.trees if (t.server, t.release) != (server, release))
        self._replace(place, dataclasses.replace(latest, trees=(*others, state)))
        return state

    def _replace(self, place: Place, found: Snapshot) -> None:
        before = self._snapshots.get(place)
        self._snapshots[place] = found
        self._note_progress(place, found.progress)
        if before is None or _engines(before) != _engines(found) or _in_trees(before) - _in_trees(found):
            self._on_change(place, None)
            return
        old, new = _trees(before), _trees(found)
        changed = frozenset(key[0] for key in old.keys() | new.keys() if old.get(key) != new.get(key))
        if changed:
            self._on_change(place, changed)

    def _note_progress(self, place: Place, found: Mapping[str, int]) -> None:
        noted, known = self._progress.get(place, (0.0, {}))
        now = self._clock()
        if found != known and (place not in self._progress or now - noted >= PROGRESS_SECONDS):
            self._progress[place] = now, found


def tree_of(found: Snapshot, *, server: str, release: str) -> TreeState | None:
    """Return one server's tree, or None when it was never written."""
    return next((t for t in found.trees if (t.server, t.release) == (server, release)), None)


def versions_in(tree: TreeState | None, model: str) -> dict[int, str]:
    """Return the versions (number → engine) that a tree has of a model."""
    versions: Mapping[str, str] = tree.models.get(model, {}) if tree is not None else {}
    return {int(number): engine for number, engine in versions.items() if number.isdecimal()}


def _engines(found: Snapshot) -> object:
    return {name: entry.key for name, entry in found.engines.items()}


def _in_trees(found: Snapshot) -> frozenset[str]:
    return frozenset(
        e for tree in found.trees for versions in tree.models.values() for e in versions.values()
    )


def _trees(found: Snapshot) -> dict[tuple[str, str], object]:
    return {(t.server, t.release): (t.revision, t.models) for t in found.trees}
