from __future__ import annotations

import asyncio
import dataclasses
from typing import cast

import pytest
from tests.builders import a_model
from tests.observed import a_snapshot, a_tree, an_entry, engine_of, model, sha

from engine_builder.contract import ModelTree, Snapshot, TreeManifest, TreeState
from triton_operator.clients.keeper import Keeper, KeeperUnreachable
from triton_operator.controllers.volumes import Place, Servers, Volumes, tree_of, versions_in

PLACE = ("vision", "models")
MODEL = model(a_model().with_version(1, "pvc://s/1.onnx", sha256=sha("1")))
ENTRY = an_entry(engine_of(MODEL, 1))

Told = list[tuple[Place, Servers | None]]
ALL = (PLACE, None)


class MemoryKeeper:
    """A keeper whose volume is in memory."""

    def __init__(self, content: Snapshot) -> None:
        self.content = content
        self.gate = asyncio.Event()
        self.gate.set()

    async def snapshot(self) -> Snapshot:
        found = self.content
        await self.gate.wait()
        return found

    async def put_tree(self, server: str, release: str, manifest: TreeManifest) -> TreeState:
        models = {tree.name: tree.versions for tree in manifest.models}
        state = TreeState(server=server, release=release, revision=manifest.revision, models=models)
        self.content = dataclasses.replace(self.content, trees=(*self.content.trees, state))
        return state


@pytest.fixture
def told() -> Told:
    return []


@pytest.fixture
def volumes(told: Told) -> Volumes:
    return Volumes(lambda *change: told.append(change))


def connect(volumes: Volumes, content: Snapshot) -> MemoryKeeper:
    keeper = MemoryKeeper(content)
    volumes.connect(PLACE, cast("Keeper", keeper))
    return keeper


def manifest(*models: str) -> TreeManifest:
    return TreeManifest(tuple(ModelTree(name, "", {"1": ENTRY.engine}) for name in models))


async def test_a_change_is_told_and_the_rest_is_not(volumes: Volumes, told: Told) -> None:
    keeper = connect(volumes, a_snapshot())
    await volumes.refresh(PLACE)
    assert told == [ALL]
    keeper.content = a_snapshot(free=1, staging=("pod",))  # comes and goes while something is built
    await volumes.refresh(PLACE)
    assert told == [ALL]
    keeper.content = a_snapshot(ENTRY)
    await volumes.refresh(PLACE)
    assert told == [ALL, ALL]
    assert volumes.snapshot(PLACE) == keeper.content


async def test_progress_is_taken_over_every_few_seconds_and_wakes_nobody(told: Told) -> None:
    now = [0.0]
    volumes = Volumes(lambda *change: told.append(change), clock=lambda: now[0])
    assert volumes.progress(PLACE) == {}
    keeper = connect(volumes, a_snapshot())
    for seconds, percent, known in ((0.0, 1, 1), (4.0, 2, 1), (5.0, 3, 3), (6.0, 4, 3), (99.0, 5, 5)):
        now[0], keeper.content = seconds, dataclasses.replace(a_snapshot(), progress={"pod": percent})
        await volumes.refresh(PLACE)
        assert volumes.progress(PLACE) == {"pod": known}
    assert told == [ALL]


async def test_nothing_is_known_before_the_keeper_was_asked(volumes: Volumes) -> None:
    assert await volumes.refresh(PLACE) is None
    assert await volumes.put_tree(PLACE, server="a10", release="24.10", manifest=manifest()) is None
    assert (volumes.keeper(PLACE), volumes.snapshot(PLACE)) == (None, None)


async def test_a_tree_that_was_written_is_known_without_asking(volumes: Volumes, told: Told) -> None:
    connect(volumes, a_snapshot(ENTRY, trees=(a_tree({"model": {}}, server="l4"),)))
    await volumes.refresh(PLACE)
    written = manifest("model")
    await volumes.put_tree(PLACE, server="a10", release="24.10", manifest=written)
    found = volumes.snapshot(PLACE)
    assert found is not None
    tree = tree_of(found, server="a10", release="24.10")
    assert tree is not None
    assert tree.revision == written.revision
    assert versions_in(tree, "model") == {1: ENTRY.engine}
    assert tree_of(found, server="l4", release="24.10") is not None
    assert told == [ALL, (PLACE, {"a10"})]
    await volumes.put_tree(PLACE, server="a10", release="24.10", manifest=written)
    assert told == [ALL, (PLACE, {"a10"})]


async def test_an_engine_that_leaves_all_trees_is_more_than_a_change_of_a_tree(
    volumes: Volumes, told: Told
) -> None:
    tree = {"model": {"1": ENTRY.engine}}
    keeper = connect(
        volumes, a_snapshot(ENTRY, trees=(a_tree(tree, server="a10"), a_tree(tree, server="l4")))
    )
    await volumes.refresh(PLACE)
    keeper.content = a_snapshot(ENTRY, trees=(a_tree({}, server="a10"), a_tree(tree, server="l4")))
    await volumes.refresh(PLACE)
    keeper.content = a_snapshot(ENTRY, trees=(a_tree({}, server="a10"), a_tree({}, server="l4")))
    await volumes.refresh(PLACE)
    assert told == [ALL, (PLACE, {"a10"}), ALL]


async def test_trees_of_two_servers_written_at_once_are_both_known(volumes: Volumes) -> None:
    connect(volumes, a_snapshot(ENTRY))
    await volumes.refresh(PLACE)
    await asyncio.gather(
        *(
            volumes.put_tree(PLACE, server=server, release="24.10", manifest=manifest(server))
            for server in ("a10", "l4")
        )
    )
    found = volumes.snapshot(PLACE)
    assert found is not None
    assert {tree.server for tree in found.trees} == {"a10", "l4"}


async def test_what_was_seen_stays_known_while_the_keeper_does_not_answer(volumes: Volumes) -> None:
    connect(volumes, a_snapshot(ENTRY))
    await volumes.refresh(PLACE)

    class Silent(MemoryKeeper):
        async def snapshot(self) -> Snapshot:
            raise KeeperUnreachable("no route")

    volumes.connect(PLACE, cast("Keeper", Silent(a_snapshot())))
    with pytest.raises(KeeperUnreachable):
        await volumes.refresh(PLACE)
    assert volumes.snapshot(PLACE) == a_snapshot(ENTRY)


async def test_a_repository_that_is_gone_is_forgotten(volumes: Volumes, told: Told) -> None:
    connect(volumes, a_snapshot())
    await volumes.refresh(PLACE)
    volumes.forget(PLACE)
    volumes.forget(PLACE)
    assert told == [ALL, ALL]
    assert (volumes.keeper(PLACE), volumes.snapshot(PLACE)) == (None, None)


def test_a_tree_tells_its_versions_and_ignores_what_is_none() -> None:
    tree = a_tree({"model": {1: "e1", 12: "e2"}})
    stray = dataclasses.replace(tree, models={"model": {**tree.models["model"], "2.tmp": "e3"}})
    assert versions_in(stray, "model") == {1: "e1", 12: "e2"}
    assert versions_in(stray, "another") == {}
    assert versions_in(None, "model") == {}
    assert tree_of(a_snapshot(trees=(tree,)), server="default", release="25.01") is None


def test_a_first_look_is_told_to_those_who_wait_for_it(volumes: Volumes, told: Told) -> None:
    assert not volumes.tried(PLACE)
    volumes.note_tried(PLACE)
    volumes.note_tried(PLACE)
    assert volumes.tried(PLACE)
    assert told == [ALL]


async def test_look_that_overlaps_a_write_of_a_tree_does_not_undo_it() -> None:
    keeper = MemoryKeeper(a_snapshot())
    volumes = Volumes(lambda *_: None)
    volumes.connect(PLACE, cast("Keeper", keeper))
    await volumes.refresh(PLACE)
    keeper.gate.clear()
    look = asyncio.create_task(volumes.refresh(PLACE))
    await asyncio.sleep(0)
    await volumes.put_tree(PLACE, server="default", release="24.10", manifest=TreeManifest(models=()))
    keeper.gate.set()
    found = await look
    assert found is not None
    assert [tree.server for tree in found.trees] == ["default"]


async def test_look_that_is_answered_after_a_later_one_does_not_undo_what_that_saw(
    volumes: Volumes, told: Told
) -> None:
    keeper = connect(volumes, a_snapshot())
    slow = keeper.gate
    slow.clear()
    look = asyncio.create_task(volumes.refresh(PLACE))
    await asyncio.sleep(0)
    keeper.content, keeper.gate = a_snapshot(ENTRY), asyncio.Event()
    keeper.gate.set()
    await volumes.refresh(PLACE)
    slow.set()
    assert await look == volumes.snapshot(PLACE) == keeper.content
    assert told == [ALL]
