from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from triton_operator.clients import watch as module
from triton_operator.clients.objects import Gone, KubeError, Object, Unavailable
from triton_operator.clients.watch import Page, watch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(module, "LONGEST_PAUSE_SECONDS", 0.002)


def an_object(name: str, version: int, *, uid: str = "") -> Object:
    metadata = {"name": name, "namespace": "vision", "uid": uid or name, "resourceVersion": str(version)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"large": True}}


def a_change(kind: str, name: str, version: int) -> Object:
    return {"type": kind, "object": an_object(name, version)}


class Server:
    """Answers lists and watches from two scripts; an exception in a script is raised."""

    def __init__(self, lists: list[Any], streams: list[list[Any]]) -> None:
        self.lists = lists
        self.streams = streams
        self.asked: list[str] = []

    async def list_all(self) -> Page:
        answer = self.lists.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return Page(objects=answer, version=str(100 * (3 - len(self.lists))))

    async def stream(self, version: str, seconds: int) -> AsyncIterator[Object]:
        self.asked.append(version)
        assert 270 <= seconds <= 330
        for event in self.streams.pop(0):
            if isinstance(event, Exception):
                raise event
            yield event

    async def told(self, count: int) -> list[tuple[str, str]]:
        events = watch(list_all=self.list_all, stream=self.stream, what="watch of pods")
        told = []
        async for event in events:
            told.append((event.type, event.object.get("metadata", {}).get("name", "")))
            if len(told) == count:
                break
        await events.aclose()
        return told


GONE = Gone(status=410, reason="Expired", message="too old resource version")
AWAY = Unavailable(status=0, reason="Unreachable", message="connection refused")


async def test_existing_objects_come_first_then_synced_then_changes() -> None:
    server = Server([[an_object("a", 1)]], [[a_change("ADDED", "b", 101), a_change("DELETED", "a", 102)]])
    assert await server.told(4) == [("ADDED", "a"), ("SYNCED", ""), ("ADDED", "b"), ("DELETED", "a")]


async def test_watch_that_ends_goes_on_where_it_was() -> None:
    server = Server(
        [[]],
        [[a_change("ADDED", "a", 101), a_change("BOOKMARK", "", 150)], [a_change("MODIFIED", "a", 151)]],
    )
    assert await server.told(3) == [("SYNCED", ""), ("ADDED", "a"), ("MODIFIED", "a")]
    assert server.asked == ["300", "150"]


@pytest.mark.parametrize("gone", [GONE, {"type": "ERROR", "object": {"kind": "Status", "code": 410}}])
async def test_forgotten_version_lists_again_and_tells_only_what_differs(gone: Any) -> None:
    server = Server(
        [
            [an_object("stays", 1), an_object("changes", 2), an_object("goes", 3)],
            [an_object("stays", 1), an_object("changes", 9), an_object("comes", 8)],
        ],
        [[gone], []],
    )
    told = await server.told(7)
    assert told[:4] == [("ADDED", "stays"), ("ADDED", "changes"), ("ADDED", "goes"), ("SYNCED", "")]
    assert told[4:] == [("DELETED", "goes"), ("MODIFIED", "changes"), ("ADDED", "comes")]


async def test_object_that_was_replaced_by_one_of_its_name_is_told_as_deleted_and_added() -> None:
    server = Server([[an_object("a", 1, uid="old")], [an_object("a", 5, uid="new")]], [[GONE], []])
    assert await server.told(4) == [("ADDED", "a"), ("SYNCED", ""), ("DELETED", "a"), ("ADDED", "a")]


async def test_what_vanished_meanwhile_is_told_by_its_identity_alone() -> None:
    server = Server([[an_object("a", 1)], []], [[GONE], []])
    events = watch(list_all=server.list_all, stream=server.stream, what="watch of pods")
    told = [await anext(events) for _ in range(3)]
    await events.aclose()
    assert told[2].object["kind"] == "Pod"
    assert "spec" not in told[2].object


async def test_failures_are_survived_and_logged_once_when_they_begin_and_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = Server([AWAY, AWAY, [an_object("a", 1)]], [[AWAY], [AWAY], [a_change("ADDED", "b", 301)]])
    with caplog.at_level(logging.INFO):
        assert await server.told(3) == [("ADDED", "a"), ("SYNCED", ""), ("ADDED", "b")]
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


async def test_connection_that_was_cut_once_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    server = Server([[]], [[AWAY], [a_change("ADDED", "a", 101)]])
    with caplog.at_level(logging.INFO):
        assert await server.told(2) == [("SYNCED", ""), ("ADDED", "a")]
    assert not caplog.records


async def test_strange_event_is_a_failure_not_a_crash() -> None:
    server = Server([[]], [[{"type": "SURPRISE"}], [a_change("ADDED", "a", 101)]])
    assert await server.told(2) == [("SYNCED", ""), ("ADDED", "a")]


async def test_unexpected_error_is_not_swallowed() -> None:
    server = Server([ZeroDivisionError()], [])
    with pytest.raises(ZeroDivisionError):
        await server.told(1)
    assert not isinstance(ZeroDivisionError(), KubeError)


async def test_what_is_cut_off_is_not_told() -> None:
    server = Server(lists=[[]], streams=[[a_change("ADDED", "a", 1), a_change("BOOKMARK", "", 2)]])

    def cut(obj: Object) -> Object:
        return {key: value for key, value in obj.items() if key != "spec"}

    events = watch(list_all=server.list_all, stream=server.stream, what="watch of nodes", keep=cut)
    synced, added = await anext(events), await anext(events)
    await events.aclose()
    assert synced.type == "SYNCED"
    assert added.object == cut(an_object("a", 1))
