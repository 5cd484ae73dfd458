from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest
from tests.unit.engine_builder.models import ENGINE, a_manifest, an_engine

from engine_builder import sweep, tree
from engine_builder.contract import SweepRequest
from engine_builder.tree import Tree

if TYPE_CHECKING:
    from engine_builder.volume import Layout

NOTHING = SweepRequest((), (), ())


def test_what_is_not_listed_goes_trees_before_their_engines(layout: Layout) -> None:
    an_engine(layout)
    an_engine(layout, "other")
    old, new = Tree(layout, "a10", "26.06"), Tree(layout, "a10", "26.07")
    tree.apply(old, a_manifest(m=("c", {"1": ENGINE})))
    tree.apply(new, a_manifest(m=("c", {"1": "other"})))
    result = sweep.sweep(layout, SweepRequest((), ("a10/26.07",), ()))
    assert (result.trees, result.engines) == (("a10/26.06",), (ENGINE,))
    assert sorted(p.name for p in old.root.parent.iterdir()) == ["26.07", "26.07.json"]
    assert sweep.sweep(layout, NOTHING).trees == ("a10/26.07",)
    assert [list(p.iterdir()) for p in (layout.servers, layout.store, layout.trash)] == [[], [], []]


def test_a_listed_engine_stays_unused(layout: Layout) -> None:
    an_engine(layout)
    assert sweep.sweep(layout, SweepRequest((ENGINE,), (), ())).engines == ()
    assert sweep.sweep(layout, NOTHING).engines == (ENGINE,)


def test_half_an_entry_that_nobody_lists_goes(layout: Layout) -> None:
    (layout.store / "half").mkdir()
    assert sweep.sweep(layout, NOTHING).engines == ("half",)


@pytest.mark.parametrize(
    "text", ["../../../../store/{}", "/repository/store/{}/", "../../../../store/{}/model.onnx"]
)
def test_a_link_made_by_hand_keeps_its_engine(layout: Layout, text: str) -> None:
    an_engine(layout)
    (layout.servers / "s/26.07/m").mkdir(parents=True)
    (layout.servers / "s/26.07/m/1").symlink_to(text.format(ENGINE))
    assert sweep.sweep(layout, SweepRequest((), ("s/26.07",), ())).engines == ()


def test_an_applied_manifest_keeps_engines_whose_links_are_gone(layout: Layout) -> None:
    an_engine(layout)
    target = Tree(layout, "s", "26.07")
    tree.apply(target, a_manifest(m=("c", {"1": ENGINE})))
    (target.root / "m/1").unlink()
    assert sweep.sweep(layout, SweepRequest((), ("s/26.07",), ())).engines == ()


def test_staging_goes_when_it_is_old_and_nobody_lists_it(layout: Layout) -> None:
    now = time.time()
    for name, age in (("old", 120), ("young", 30), ("listed", 120), ("busy", 120), ("keeper-tree", 120)):
        path = layout.staging / name
        path.mkdir()
        if name == "busy":
            (path / "growing").touch()
        os.utime(path, (now - age, now - age))
    assert sweep.sweep(layout, SweepRequest((), (), ("listed",)), now=now).staging == ("old",)
    assert sweep.list_staging(layout) == ["busy", "listed", "young"]


def test_an_interrupted_sweep_is_finished_by_the_next(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    an_engine(layout)
    target = Tree(layout, "s", "26.07")
    tree.apply(target, a_manifest(m=("c", {"1": ENGINE})))
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", lambda *_a, **_k: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        with pytest.raises(OSError, match="Input/output"):
            sweep.sweep(layout, NOTHING)
    assert not target.root.exists()
    assert sweep.sweep(layout, NOTHING).trees == ("s/26.07",)
    assert sweep.empty_trash(layout) >= 1
    assert [list(p.iterdir()) for p in (layout.servers, layout.store, layout.trash)] == [[], [], []]
