"""The endless watch: list, follow, list again when the server has forgotten where we were."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from triton_operator.clients.objects import Gone, KubeError, Object, Unavailable, WatchEvent, error_of

log = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
LIVED_SECONDS = 60.0
"""A watch that broke after so long had worked, even if it never said a word: no request takes as long."""

SERVER_SECONDS = (270, 330)
"""The server ends a watch after so long: between these, so that not all end at once."""

_IDENTITY = ("name", "namespace", "uid", "labels", "ownerReferences", "resourceVersion")


@dataclasses.dataclass(frozen=True)
class Page:
    """All objects of a list, and the version to watch from."""

    objects: list[Object]
    version: str


ListAll = Callable[[], Awaitable[Page]]
Stream = Callable[[str, int], AsyncIterator[Object]]
"""Given a resource version and seconds, the server's raw watch events."""


async def watch(
    *, list_all: ListAll, stream: Stream, what: str, keep: Callable[[Object], Object] = lambda obj: obj
) -> AsyncGenerator[WatchEvent]:
    """Yield the events of an endless watch; see `Kube.watch`.

    `keep` is applied to the objects of the stream; those of a list have been cut already.
    """
    known = _Known()
    backoff = _Backoff(what)
    version, synced = "", False
    while True:
        started = time.monotonic()
        try:
            if not version:
                page = await list_all()
                for event in known.replace(page.objects):
                    yield event
                if not synced:
                    synced = True
                    yield WatchEvent("SYNCED", {})
                version = page.version
            async with contextlib.aclosing(_typed_stream(stream, version)) as events:
                async for kind, item in events:
                    backoff.succeeded()
                    version = item["metadata"]["resourceVersion"]
                    if kind != "BOOKMARK":
                        yield known.change(kind, keep(item))
        except Gone:
            version = ""
        except KubeError as error:
            backoff.failed(error, lived=time.monotonic() - started)
        if time.monotonic() - started < 1:
            # Also after a clean end: a server or proxy that ends every watch at once is not hammered.
            await backoff.pause()


async def _typed_stream(stream: Stream, version: str) -> AsyncGenerator[tuple[str, Object]]:
    """Yield type and object of each raw event; raise what the server reports as ERROR."""
    raw = stream(version, random.randint(*SERVER_SECONDS))  # noqa: S311 - spreads load, hides nothing
    try:
        async for event in raw:
            kind, item = event.get("type"), event.get("object") or {}
            if kind == "ERROR":
                raise error_of(int(item.get("code") or 500), item, request="watch")
            if kind not in ("ADDED", "MODIFIED", "DELETED", "BOOKMARK") or "metadata" not in item:
                raise Unavailable(status=0, reason="BadWatchEvent", message=f"watch: event of type {kind!r}")
            yield kind, item
    finally:
        if isinstance(raw, AsyncGenerator):
            await raw.aclose()


class _Known:
    """Who exists as far as this watch has told: identities only, the objects are not kept."""

    def __init__(self) -> None:
        self._identities: dict[str, Object] = {}

    def replace(self, objects: list[Object]) -> Iterator[WatchEvent]:
        """Yield what differs between this list and what was told before."""
        listed = {item["metadata"]["uid"]: item for item in objects}
        for uid in [uid for uid in self._identities if uid not in listed]:
            yield WatchEvent("DELETED", self._identities.pop(uid))
        for uid, item in listed.items():
            before = self._identities.get(uid)
            if before is None:
                yield self.change("ADDED", item)
            elif before["metadata"].get("resourceVersion") != item["metadata"].get("resourceVersion"):
                yield self.change("MODIFIED", item)

    def change(self, kind: Any, item: Object) -> WatchEvent:
        """Remember an event and return it."""
        uid = item["metadata"]["uid"]
        if kind == "DELETED":
            self._identities.pop(uid, None)
        else:
            metadata = {k: v for k, v in item["metadata"].items() if k in _IDENTITY}
            self._identities[uid] = {
                "apiVersion": item.get("apiVersion"),
                "kind": item.get("kind"),
                "metadata": metadata,
            }
        return WatchEvent(kind, item)


class _Backoff:
    """Pauses that grow while a watch fails; says in the log when it breaks and when it is back.

    One failure is no news: load balancers cut idle connections, and the next one works.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._failures = 0
        self._broken = False

    def failed(self, error: KubeError, *, lived: float) -> None:
        if lived > LIVED_SECONDS:
            self.succeeded()
        self._failures += 1
        if self._failures > 1 and not self._broken:
            self._broken = True
            log.warning("%s is interrupted: %s", self._what, error)

    def succeeded(self) -> None:
        self._failures = 0
        if self._broken:
            self._broken = False
            log.info("%s works again", self._what)

    async def pause(self) -> None:
        longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(self._failures, 10))
        await asyncio.sleep(random.uniform(longest / 2, longest))  # noqa: S311 - jitter
