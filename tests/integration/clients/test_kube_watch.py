from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from triton_operator.clients import watch as module
from triton_operator.clients.kube import INFERENCE_MODEL, Kind, Kube

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest
    from tests.integration.clients.conftest import Line

    from triton_operator.clients.kube import WatchEvent

CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps")
OURS = {"app.kubernetes.io/managed-by": "triton-operator"}
SELECTOR = "app.kubernetes.io/managed-by=triton-operator"


def a_config_map(namespace: str, name: str, *, size: int = 1) -> dict[str, Any]:
    return {"metadata": {"namespace": namespace, "name": name, "labels": OURS}, "data": {"a": "x" * size}}


class Told:
    """What a watch told, and waiting for more of it."""

    def __init__(self, events: AsyncIterator[WatchEvent]) -> None:
        self._events = events

    async def next(self) -> tuple[str, str]:
        async with asyncio.timeout(20):
            event = await anext(self._events)
        return event.type, event.object.get("metadata", {}).get("name", "")


@contextlib.asynccontextmanager
async def watching(kube: Kube, namespace: str) -> AsyncIterator[Told]:
    events = kube.watch(CONFIG_MAP, labels=SELECTOR, namespace=namespace)
    try:
        yield Told(events)
    finally:
        await events.aclose()


async def test_watch_tells_what_exists_and_what_changes(kube: Kube, namespace: str) -> None:
    first = await kube.create(CONFIG_MAP, a_config_map(namespace, "first"))
    other = a_config_map(namespace, "other")
    other["metadata"]["labels"] = {}
    await kube.create(CONFIG_MAP, other)
    async with watching(kube, namespace) as told:
        assert await told.next() == ("ADDED", "first")
        assert await told.next() == ("SYNCED", "")
        second = await kube.create(CONFIG_MAP, a_config_map(namespace, "second"))
        assert await told.next() == ("ADDED", "second")
        await kube.replace(CONFIG_MAP, {**second, "data": {"a": "2"}})
        assert await told.next() == ("MODIFIED", "second")
        await kube.delete(CONFIG_MAP, namespace, "first", uid=first["metadata"]["uid"])
        assert await told.next() == ("DELETED", "first")


async def test_watch_reads_objects_of_any_size(kube: Kube, namespace: str) -> None:
    async with watching(kube, namespace) as told:
        assert await told.next() == ("SYNCED", "")
        await kube.create(CONFIG_MAP, a_config_map(namespace, "large", size=900_000))
        assert await told.next() == ("ADDED", "large")


async def test_events_carry_apiversion_and_kind_from_lists_too(kube: Kube, namespace: str) -> None:
    source = {"uri": "pvc://models/det.onnx"}
    spec = {"backend": "ONNXRuntime", "versions": [{"number": 1, "source": source}]}
    await kube.create(INFERENCE_MODEL, {"metadata": {"namespace": namespace, "name": "det"}, "spec": spec})
    events = kube.watch(INFERENCE_MODEL, namespace=namespace)
    event = await anext(events)
    await events.aclose()
    assert (event.object["apiVersion"], event.object["kind"]) == (
        "triton-operator.io/v1alpha1",
        "InferenceModel",
    )


async def test_watch_goes_on_after_the_line_was_cut(
    kube: Kube, far_kube: Kube, line: Line, namespace: str
) -> None:
    first = await kube.create(CONFIG_MAP, a_config_map(namespace, "first"))
    async with watching(far_kube, namespace) as told:
        assert [await told.next(), await told.next()] == [("ADDED", "first"), ("SYNCED", "")]
        await line.cut()
        await kube.create(CONFIG_MAP, a_config_map(namespace, "second"))
        await kube.delete(CONFIG_MAP, namespace, "first", uid=first["metadata"]["uid"])
        waiting = asyncio.create_task(told.next())
        await asyncio.sleep(0.5)
        assert not waiting.done()
        await line.mend()
        assert sorted([await waiting, await told.next()]) == [("ADDED", "second"), ("DELETED", "first")]


async def test_watch_waits_for_a_server_that_is_not_there_yet(
    far_kube: Kube, line: Line, namespace: str
) -> None:
    await line.cut()
    async with watching(far_kube, namespace) as told:
        waiting = asyncio.create_task(told.next())
        await asyncio.sleep(0.3)
        await line.mend()
        assert await waiting == ("SYNCED", "")


async def test_watch_that_the_server_ends_goes_on(
    kube: Kube, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SERVER_SECONDS", (1, 1))
    async with watching(kube, namespace) as told:
        assert await told.next() == ("SYNCED", "")
        for n in range(3):
            await asyncio.sleep(0.7)
            await kube.create(CONFIG_MAP, a_config_map(namespace, f"map-{n}"))
            assert await told.next() == ("ADDED", f"map-{n}")


async def test_closing_a_watch_closes_its_connection(
    kube: Kube, line: Line, far_kube: Kube, namespace: str
) -> None:
    async with watching(far_kube, namespace) as told:
        await told.next()
        waiting = asyncio.create_task(told.next())
        await asyncio.sleep(0.2)
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
    async with asyncio.timeout(5):
        while line._pairs:
            await asyncio.sleep(0.01)
            await far_kube.close()
