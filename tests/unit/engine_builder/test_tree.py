from __future__ import annotations

import functools
import itertools
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.engine_builder.models import a_manifest, an_engine, everything

from engine_builder import sweep, tree
from engine_builder.contract import ModelTree, SweepRequest, TreeManifest
from engine_builder.errors import Refused
from engine_builder.tree import Tree
from engine_builder.volume import Layout

if TYPE_CHECKING:
    from collections.abc import Iterator

ENGINES = ["onnxruntime-a", "onnxruntime-b", "onnxruntime-c"]


@functools.cache
def _store() -> tempfile.TemporaryDirectory[str]:
    """Make a volume with three engines once; every tree gets a copy."""
    folder = tempfile.TemporaryDirectory()
    for name in ENGINES:
        an_engine(Layout(Path(folder.name)), name)
    return folder


@contextmanager
def a_tree() -> Iterator[Tree]:
    """Yield a tree on a fresh volume, quickly: nobody pulls the real plug, so nothing is flushed."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _fd: None)
        shutil.copytree(_store().name, folder, dirs_exist_ok=True)
        yield Tree(Layout(Path(folder)), "a10", "26.07")


@pytest.fixture
def server_tree() -> Iterator[Tree]:
    with a_tree() as found:
        yield found


_MANIFESTS = st.lists(
    st.builds(
        ModelTree,
        name=st.sampled_from(["alpha", "beta", "beta.candidate", "Gamma_1"]),
        config=st.sampled_from(['backend: "onnxruntime"', "", "ü"]),
        versions=st.dictionaries(st.sampled_from(["1", "2", "10"]), st.sampled_from(ENGINES), max_size=3),
        files=st.dictionaries(
            st.sampled_from(["labels_y.txt", "x"]), st.sampled_from(["", "ä\n"]), max_size=2
        ),
    ),
    max_size=3,
    unique_by=lambda m: m.name,
).map(lambda models: TreeManifest(tuple(models)))

_LINK = "../../../../store/"
_THINGS = st.sampled_from(
    ["file", "directory", "full directory", "good link", "dangling link", "link out", "config"]
)
_PLACES = st.sampled_from(
    ["", "alpha", "beta", "junk", "alpha/1", "alpha/2", "alpha/config.pbtxt", "alpha/x", "beta/x", "beta/1"]
)


def _put(root: Path, place: str, thing: str) -> None:
    """Damage a tree as a careless hand might."""
    path = root / place if place else root
    above = [root, path.parent] if place else [root.parent]
    if any(p.is_symlink() or p.is_file() for p in above):
        return  # never through a link that another damage put there
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(path)
    if thing in {"file", "config"}:
        path.write_text("junk" if thing == "file" else 'backend: "onnxruntime"')
    elif thing.endswith("directory"):
        path.mkdir()
        if thing.startswith("full"):
            (path / "inner").mkdir()
            (path / "inner/file").touch()
    else:
        target = {
            "good link": _LINK + ENGINES[1],
            "dangling link": _LINK + "gone",
            "link out": "/nowhere/outside",
        }[thing]
        path.symlink_to(target)


def _assert_is(target: Tree, manifest: TreeManifest) -> None:
    """Compare the tree with the manifest path by path, without the code under test."""
    expected: dict[str, str] = {}
    for model in manifest.models:
        expected[model.name] = "directory"
        expected[f"{model.name}/config.pbtxt"] = model.config
        expected.update({f"{model.name}/{name}": text for name, text in model.files.items()})
        expected.update({f"{model.name}/{v}": f"-> {_LINK}{e}" for v, e in model.versions.items()})
    assert {name: what for name, (what, _) in everything(target.root).items()} == expected
    for path in target.root.rglob("*"):
        assert path.exists(), f"{path} leads nowhere"


@settings(max_examples=50, deadline=None)
@given(before=_MANIFESTS, damage=st.lists(st.tuples(_PLACES, _THINGS), max_size=4), after=_MANIFESTS)
def test_any_state_of_the_disk_becomes_the_manifest(
    before: TreeManifest, damage: list[tuple[str, str]], after: TreeManifest
) -> None:
    with a_tree() as target:
        tree.apply(target, before)
        for place, thing in damage:
            _put(target.root, place, thing)
        tree.apply(target, after)
        _assert_is(target, after)
        assert tree.state(target).revision == after.revision
        untouched = everything(target.layout.root)
        assert tree.apply(target, after) is False
        assert everything(target.layout.root) == untouched
        assert list(target.layout.staging.iterdir()) == list(target.layout.trash.iterdir()) == []


class _CrashError(BaseException):
    """The machine lost its power: nothing after this happens, not even cleaning up."""


_OPERATIONS = ("rename", "symlink", "mkdir", "unlink", "rmdir", "write", "chmod", "fchmod", "fsync")


@contextmanager
def power_for(operations: int) -> Iterator[list[int]]:
    """Let so many changes of the file system happen; yields a list with the number that did."""
    done, real = [0], {name: getattr(os, name) for name in _OPERATIONS}

    def counted(name: str) -> Any:
        def operation(*args: Any, **kwargs: Any) -> Any:
            if done[0] >= operations:
                raise _CrashError
            done[0] += 1
            return None if name == "fsync" else real[name](*args, **kwargs)

        return operation

    with pytest.MonkeyPatch.context() as patch:
        for name in _OPERATIONS:
            patch.setattr(os, name, counted(name))
        yield done


def _has_files(directory: Path, model: ModelTree, known: list[ModelTree]) -> bool:
    """Tell whether all that a config may name is there, and whole."""
    return all(
        (directory / name).is_file()
        and (directory / name).read_text() in {m.files[name] for m in known if name in m.files}
        for name in model.files
    )


def _assert_servable(target: Tree, before: TreeManifest, after: TreeManifest) -> None:
    """Whatever Triton finds now is complete, and what stays was there all the time."""
    old, new = ({m.name: m for m in manifest.models} for manifest in (before, after))
    for directory in target.root.iterdir() if target.root.exists() else ():
        known = [m[directory.name] for m in (old, new) if directory.name in m]
        assert known, f"{directory.name} is of no manifest"
        config = (directory / "config.pbtxt").read_text()
        assert any(m.config == config and _has_files(directory, m, known) for m in known)
        versions = {v: e for m in known for v, e in m.versions.items()}
        for path in directory.iterdir():
            assert path.name in {*versions, "config.pbtxt", *(name for m in known for name in m.files)}
            assert path.exists()
    for name in old.keys() & new.keys():
        staying = old[name].versions.items() & new[name].versions.items()
        for version, engine in staying:
            assert tree.linked_engine(target.root / name / version) == engine
        for version in old[name].versions.keys() & new[name].versions.keys():
            assert (target.root / name / version / "MANIFEST").exists()


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(before=_MANIFESTS, after=_MANIFESTS)
def test_a_crash_after_any_operation_leaves_what_triton_can_serve(
    before: TreeManifest, after: TreeManifest
) -> None:
    for operations in itertools.count():
        with a_tree() as target:
            tree.apply(target, before)
            try:
                with power_for(operations):
                    tree.apply(target, after)
            except _CrashError:
                _assert_servable(target, before, after)
                assert tree.state(target).revision in {"", before.revision, after.revision}
                tree.apply(target, after)
                _assert_is(target, after)
            else:
                _assert_is(target, after)
                return


def test_everything_is_added_before_anything_is_removed(
    server_tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version before the config that names it; removals last, over all models."""
    old = a_manifest(gone=("c", {"1": ENGINES[0]}), m=("old", {"1": ENGINES[0]}))
    new = a_manifest(m=("new", {"2": ENGINES[1]}), z=("c", {"1": ENGINES[2]}))
    tree.apply(server_tree, old)
    seen: list[tuple[set[str], str]] = []
    real = os.rename

    def watch(source: Any, target: Any, **kwargs: Any) -> None:
        real(source, target, **kwargs)
        found = {str(p.relative_to(server_tree.root)) for p in server_tree.root.glob("*/[0-9]*")}
        seen.append((found, (server_tree.root / "m/config.pbtxt").read_text()))

    monkeypatch.setattr(os, "rename", watch)
    tree.apply(server_tree, new)
    assert [found for found, _ in seen[:5]] == [
        {"gone/1", "m/1", "m/2"},
        {"gone/1", "m/1", "m/2"},
        {"gone/1", "m/1", "m/2", "z/1"},
        {"gone/1", "m/2", "z/1"},
        {"m/2", "z/1"},
    ]
    assert [config for _, config in seen[:2]] == ["old", "new"]


def test_what_did_not_change_keeps_its_time(server_tree: Tree) -> None:
    keep = {"1": ENGINES[0], "2": ENGINES[1]}
    tree.apply(server_tree, a_manifest(keep=("c", keep), other=("c", keep)))
    before = everything(server_tree.root)
    tree.apply(server_tree, a_manifest(keep=("c", keep), other=("changed", keep), more=("c", keep)))
    after = everything(server_tree.root)
    for name in ("keep", "keep/1", "keep/2", "keep/config.pbtxt", "other/1", "other/2"):
        assert before[name] == after[name]


@pytest.mark.parametrize(
    ("name", "versions", "status"),
    [
        ("../m", {}, 400),
        ("a/b", {}, 400),
        (".m", {}, 400),
        ("m", {"0": ENGINES[0]}, 400),
        ("m", {"1.tmp": ENGINES[0]}, 400),
        ("m", {"1": "../store"}, 400),
        ("m", {"1": ENGINES[0], "2": "onnxruntime-gone"}, 409),
    ],
)
def test_a_manifest_that_must_not_become_a_tree_changes_nothing(
    server_tree: Tree, name: str, versions: dict[str, str], status: int
) -> None:
    tree.apply(server_tree, a_manifest(m=("c", {"1": ENGINES[0]})))
    before = everything(server_tree.layout.root)
    with pytest.raises(Refused) as caught:
        tree.apply(server_tree, TreeManifest((ModelTree(name, "c", versions),)))
    assert caught.value.status == status
    assert everything(server_tree.layout.root) == before


@pytest.mark.parametrize(
    "name", ["config.pbtxt", "1", "1.txt", "../x", "a/b", ".hidden", "", "a b", "x" * 256, "labels\n"]
)
def test_a_file_that_may_lie_elsewhere_or_be_a_version_is_refused(server_tree: Tree, name: str) -> None:
    with pytest.raises(Refused, match="name of a file"):
        tree.apply(server_tree, TreeManifest((ModelTree("m", "c", {}, {name: "text"}),)))
    assert not server_tree.root.exists()


@pytest.mark.parametrize(
    "model", [ModelTree("m", "c" * 3_000_000, {}), ModelTree("m", "", {}, {"x": "ü" * 1_500_000})]
)
def test_a_text_that_no_object_can_hold_is_refused(server_tree: Tree, model: ModelTree) -> None:
    with pytest.raises(Refused, match="over 2097152 bytes"):
        tree.apply(server_tree, TreeManifest((model,)))


def test_a_file_is_there_before_the_config_that_names_it_and_goes_last(
    server_tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.apply(server_tree, TreeManifest((ModelTree("m", "old", {}, {"a": "1", "keep": "k"}),)))
    keep = (server_tree.root / "m/keep").stat().st_mtime_ns
    seen: list[dict[str, str]] = []
    real = os.rename

    def watch(source: Any, target: Any, **kwargs: Any) -> None:
        real(source, target, **kwargs)
        seen.append({p.name: p.read_text() for p in (server_tree.root / "m").iterdir()})

    monkeypatch.setattr(os, "rename", watch)
    tree.apply(server_tree, TreeManifest((ModelTree("m", "new", {}, {"b": "2", "keep": "k"}),)))
    assert seen[:3] == [
        {"a": "1", "keep": "k", "b": "2", "config.pbtxt": "old"},
        {"a": "1", "keep": "k", "b": "2", "config.pbtxt": "new"},
        {"keep": "k", "b": "2", "config.pbtxt": "new"},
    ]
    assert (server_tree.root / "m/keep").stat().st_mtime_ns == keep


def test_a_file_changed_by_hand_shows_as_an_empty_revision(server_tree: Tree) -> None:
    manifest = TreeManifest((ModelTree("m", "c", {}, {"labels.txt": "cat\ndog\n"}),))
    tree.apply(server_tree, manifest)
    (server_tree.root / "m/labels.txt").write_text("dog\n")
    assert tree.state(server_tree).revision == ""
    tree.apply(server_tree, manifest)
    _assert_is(server_tree, manifest)


def test_a_model_that_stands_twice_is_refused(server_tree: Tree) -> None:
    with pytest.raises(Refused, match="twice"):
        tree.apply(server_tree, TreeManifest((ModelTree("m", "a", {}), ModelTree("m", "b", {}))))


def test_damage_shows_as_an_empty_revision(server_tree: Tree) -> None:
    manifest = a_manifest(m=("c", {"1": ENGINES[0]}))
    tree.apply(server_tree, manifest)
    assert tree.state(server_tree).revision == manifest.revision
    shutil.rmtree(server_tree.layout.store / ENGINES[0])
    assert tree.state(server_tree).revision == ""
    an_engine(server_tree.layout, ENGINES[0])
    (server_tree.root / "m/config.pbtxt").chmod(0o600)
    assert tree.state(server_tree).revision == ""
    assert tree.apply(server_tree, manifest) is True
    assert tree.state(server_tree).revision == manifest.revision


def test_a_release_directory_that_is_a_link_is_replaced_not_followed(
    server_tree: Tree, tmp_path: Path
) -> None:
    (tmp_path / "precious").touch()
    server_tree.root.parent.mkdir()
    server_tree.root.symlink_to(tmp_path)
    tree.apply(server_tree, a_manifest(m=("c", {"1": ENGINES[0]})))
    assert (tmp_path / "precious").exists()
    assert not (tmp_path / "m").exists()
    _assert_is(server_tree, a_manifest(m=("c", {"1": ENGINES[0]})))


@settings(max_examples=40, deadline=None)
@given(
    manifests=st.lists(_MANIFESTS, max_size=2),
    damage=st.lists(st.tuples(_PLACES, _THINGS), max_size=2),
    keep=st.lists(st.sampled_from(ENGINES)),
)
def test_a_sweep_never_removes_what_a_kept_tree_names(
    manifests: list[TreeManifest], damage: list[tuple[str, str]], keep: list[str]
) -> None:
    with a_tree() as target:
        trees = [Tree(target.layout, "a10", f"26.0{n}") for n in range(len(manifests))]
        for found, manifest in zip(trees, manifests, strict=True):
            tree.apply(found, manifest)
            for place, thing in damage:
                _put(found.root, place, thing)
        listed = tuple(f"{t.server}/{t.release}" for t in trees)
        linked = {p.name for p in _targets(target.layout)}
        promised = {e for m in manifests for model in m.models for e in model.versions.values()}
        result = sweep.sweep(target.layout, SweepRequest(tuple(keep), listed, ()))
        left = {path.name for path in target.layout.store.iterdir()}
        assert left == (linked | promised | set(keep)) & set(ENGINES)
        assert set(result.engines) == set(ENGINES) - left


def _targets(layout: Layout) -> list[Path]:
    links = [p for p in layout.servers.rglob("*") if p.is_symlink()]
    return [Path(os.path.normpath(p.parent / p.readlink())) for p in links]
