"""Make a server's tree equal to a manifest, whatever lies there, and never show half of anything.

Triton may read the tree at any moment: a pod that starts now loads what it finds. So every
change is one rename of something complete, made in `.staging`; what is added or changed comes
first, what is removed comes last; and what is right already is not touched, because Triton
reloads what has a newer time.
"""

from __future__ import annotations

import dataclasses
import os
import re
from typing import TYPE_CHECKING

from engine_builder import faults, files, names, store
from engine_builder.contract import ModelTree, TreeManifest, TreeState, from_json, to_json
from engine_builder.errors import Refused
from engine_builder.volume import KEEPER_STAGING, Layout

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

CONFIG = "config.pbtxt"
_LINK = re.compile(r"\.\./\.\./\.\./\.\./store/([a-z0-9-]+)")
_MOST_BYTES = 2 << 20
"""Of one text in a model's directory: more than an object of Kubernetes can hold."""


@dataclasses.dataclass(frozen=True)
class Applied:
    """The manifest last applied, kept beside the tree."""

    revision: str
    models: tuple[ModelTree, ...]
    kept: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Tree:
    """Paths of one server's tree of one release."""

    layout: Layout
    server: str
    release: str

    @property
    def root(self) -> Path:
        """What Triton is given as its model repository."""
        return self.layout.servers / self.server / self.release

    @property
    def applied(self) -> Path:
        """The manifest last applied."""
        return self.layout.servers / self.server / f"{self.release}.json"


def link_text(engine: str) -> str:
    """Return what a version's link holds."""
    return f"../../../../store/{engine}"


def linked_engine(path: Path) -> str | None:
    """Return the engine that a version's link names, or None for anything else."""
    try:
        found = _LINK.fullmatch(str(path.readlink()))
    except OSError:
        return None
    return found[1] if found else None


def validate(layout: Layout, manifest: TreeManifest) -> None:
    """Refuse a manifest that must not become a tree; nothing has changed then.

    Raises:
        Refused: 400 for names, 409 `EngineMissing`.
    """
    seen: set[str] = set()
    for model in manifest.models:
        if not names.is_model(model.name) or model.name in seen:
            raise Refused(400, "InvalidManifest", f"{model.name!r} is no model name, or stands twice")
        seen.add(model.name)
        _validate_texts(model)
        for version, engine in model.versions.items():
            if not names.is_version(version) or not names.is_engine(engine):
                raise Refused(
                    400, "InvalidManifest", f"{model.name}: {version!r}: {engine!r} is no version and engine"
                )
    for name in manifest.kept:
        if not names.is_model(name) or name in seen:
            raise Refused(400, "InvalidManifest", f"{name!r} is no name of a model that is kept")
    wanted = {e for m in manifest.models for e in m.versions.values()}
    missing = sorted(e for e in wanted if store.read_manifest(layout, e) is None)
    if missing:
        raise Refused(409, "EngineMissing", f"not in the store: {', '.join(missing)}")


def _validate_texts(model: ModelTree) -> None:
    for name in model.files:
        if not names.is_file(name) or name == CONFIG:
            raise Refused(400, "InvalidManifest", f"{model.name}: {name!r} cannot be the name of a file")
    for name, text in _texts(model).items():
        if len(text.encode()) > _MOST_BYTES:
            raise Refused(400, "InvalidManifest", f"{model.name}/{name} is over {_MOST_BYTES} bytes")


def _texts(model: ModelTree) -> dict[str, str]:
    """Return what a model's files hold; config.pbtxt comes last, as it may name the others."""
    return {**dict(sorted(model.files.items())), CONFIG: model.config}


@dataclasses.dataclass(frozen=True)
class Differences:
    """What must happen in one model's directory; `whole` when there is none worth keeping."""

    whole: bool = False
    links: Mapping[str, str] = dataclasses.field(default_factory=dict)
    texts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    extra: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.whole or bool(self.links) or bool(self.texts) or bool(self.extra)


def differences(directory: Path, model: ModelTree) -> Differences:
    """Compare a model's directory with what it must be."""
    if directory.is_symlink() or not directory.is_dir():
        return Differences(whole=True)
    found, texts = {path.name: path for path in directory.iterdir()}, _texts(model)
    return Differences(
        links={v: e for v, e in model.versions.items() if v not in found or linked_engine(found[v]) != e},
        texts={name: text for name, text in texts.items() if not _holds(directory / name, text)},
        extra=tuple(sorted(found.keys() - model.versions.keys() - texts.keys())),
    )


def _holds(path: Path, text: str) -> bool:
    if files.read_file(path) != text.encode():
        return False
    return path.stat().st_mode & files.FILE_MODE == files.FILE_MODE


def _others(tree: Tree, manifest: TreeManifest) -> list[Path]:
    wanted = {*manifest.kept, *(model.name for model in manifest.models)}
    return [path for path in _children(tree.root) if path.name not in wanted]


def _children(path: Path) -> list[Path]:
    if path.is_symlink() or not path.is_dir():
        return []
    return sorted(path.iterdir())


def equals(tree: Tree, manifest: TreeManifest) -> bool:
    """Tell whether the tree on the volume is what the manifest says, file by file."""
    if tree.root.is_symlink() or not tree.root.is_dir() or _others(tree, manifest):
        return False
    return not any(differences(tree.root / model.name, model) for model in manifest.models)


def apply(tree: Tree, manifest: TreeManifest) -> bool:
    """Make the tree equal to the manifest; tells whether anything had to change.

    Raises:
        Refused: the manifest is not valid.
        OSError: the volume failed; what Triton sees is complete at every step, and applying
            again finishes.
    """
    validate(tree.layout, manifest)
    text = to_json(Applied(manifest.revision, manifest.models, manifest.kept)).encode()
    if files.read_file(tree.applied) == text and equals(tree, manifest):
        return False
    _Change(tree).run(manifest, text)
    return True


class _Change:
    """One application of a manifest: add and replace first, remove last, note it at the end."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._staging = tree.layout.staging / f"{KEEPER_STAGING}tree"
        self._trash = tree.layout.trash

    def run(self, manifest: TreeManifest, text: bytes) -> None:
        files.delete(self._staging)  # of a keeper that was stopped in the middle
        files.make_directory(self._staging)
        self._make_root()
        extra = [self._complete(model) for model in manifest.models]
        for path in (*(p for paths in extra for p in paths), *_others(self._tree, manifest)):
            files.discard(path, trash=self._trash)
            faults.point("tree.remove", path.name)
        files.sync_directory(self._tree.root)
        self._clear(self._tree.applied)
        files.replace_file(self._tree.applied, text, staging=self._staging)
        faults.point("tree.applied", manifest.revision)
        files.delete(self._staging)

    def _make_root(self) -> None:
        for path in (self._tree.root.parent, self._tree.root):
            if path.is_symlink() or (path.exists() and not path.is_dir()):
                files.discard(path, trash=self._trash)
            files.make_directory(path)
            files.sync_directory(path.parent)

    def _complete(self, model: ModelTree) -> list[Path]:
        """Add and replace what a model lacks; returns what is to be removed at the end."""
        directory = self._tree.root / model.name
        found = differences(directory, model)
        if found.whole:
            self._assemble(directory, model)
            return []
        for version, engine in sorted(found.links.items()):
            self._link(directory / version, engine)
        if found.links:
            files.sync_directory(directory)
        for name, text in found.texts.items():
            self._clear(directory / name)
            files.replace_file(directory / name, text.encode(), staging=self._staging)
            faults.point("tree.config", model.name)
        return [directory / name for name in found.extra]

    def _assemble(self, directory: Path, model: ModelTree) -> None:
        """Make a model's directory out of sight and show it in one rename."""
        place = self._staging / model.name
        files.make_directory(place)
        for name, text in _texts(model).items():
            files.write_file(place / name, text.encode())
        for version, engine in model.versions.items():
            (place / version).symlink_to(link_text(engine))
        files.sync_tree(place)
        if directory.is_symlink() or directory.exists():
            files.discard(directory, trash=self._trash)
        place.rename(directory)
        faults.point("tree.model", model.name)
        files.sync_directory(directory.parent)

    def _link(self, path: Path, engine: str) -> None:
        """Point a version at an engine; the old link, if any, is replaced in the same instant."""
        temporary = self._staging / os.urandom(8).hex()
        temporary.symlink_to(link_text(engine))
        self._clear(path)
        temporary.rename(path)
        faults.point("tree.link", f"{path.parent.name}/{path.name}")

    def _clear(self, path: Path) -> None:
        """Make way where somebody put a directory: a rename replaces files and links only."""
        if path.is_dir() and not path.is_symlink():
            files.discard(path, trash=self._trash)


def read_applied(tree: Tree) -> TreeManifest | None:
    """Return the manifest last applied, or None where none is readable."""
    content = files.read_file(tree.applied)
    if content is None:
        return None
    try:
        return from_json(TreeManifest, content)
    except ValueError:
        return None


def state(tree: Tree) -> TreeState:
    """Return the tree as it is found; its revision is empty unless everything is as applied."""
    models = {path.name: _versions(path) for path in _children(tree.root) if path.is_dir()}
    applied = read_applied(tree)
    sound = applied is not None and equals(tree, applied) and not _dangling(tree.layout, models)
    return TreeState(
        server=tree.server,
        release=tree.release,
        revision=applied.revision if applied is not None and sound else "",
        models=models,
    )


def _versions(directory: Path) -> dict[str, str]:
    found = {path.name: linked_engine(path) for path in _children(directory)}
    return {name: engine for name, engine in found.items() if engine is not None}


def _dangling(layout: Layout, models: Mapping[str, Mapping[str, str]]) -> bool:
    engines = {engine for versions in models.values() for engine in versions.values()}
    return any(not (layout.store / engine / store.MANIFEST).is_file() for engine in engines)


def list_trees(layout: Layout) -> list[Tree]:
    """Return every tree that lies on the volume, or whose manifest does."""
    found = set()
    for server in _children(layout.servers):
        for path in _children(server):
            release = path.name.removesuffix(".json")
            if names.is_server(server.name) and names.is_release(release):
                found.add((server.name, release))
    return [Tree(layout, server, release) for server, release in sorted(found)]
