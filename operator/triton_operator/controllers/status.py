"""One status write at the end of a reconcile, and an Event when the story takes a turn."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import datetime
import logging
import time
import uuid
from collections.abc import Callable
from typing import Any

from triton_operator.clients.kube import EVENT, Conflict, Kind, Kube, KubeError, NotFound, Object
from triton_operator.controllers.cache import Cache, Draft
from triton_operator.controllers.schedule import Key
from triton_operator.logs import about
from triton_operator.plan.conditions import shorten, summarise
from triton_operator.plan.outcome import Outcome, Stalled
from triton_operator.resources.common import Resource

log = logging.getLogger(__name__)

NOTE_LENGTH = 1024
"""Most characters that the API server takes in an Event's note."""

PASSING_SECONDS = 1.0
"""So much later a status is written whose conditions stay true or false as they were."""

EVENT_SECONDS, ALL_EVENTS_SECONDS = 0.5, 2.0
"""Between an Event and the next, and for all that wait: they come in bunches, and nothing hangs on them."""


class StatusWriter:
    """Writes statuses when, and only when, they differ from what is there.

    What turns a condition, or is the first word about a new spec, is written at once. All else,
    such as how many pods have loaded a version, waits for what comes next: a switch takes ten
    steps in a second, and to write each of them keeps the API server busier than the switch
    itself. Until then the cache has it as a draft, and if this process dies the next one finds
    it out again.
    """

    def __init__(
        self,
        kube: Kube,
        cache: Cache,
        *,
        instance: str,
        look_again: Callable[[Key, float], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Write through `kube`; `look_again` has an object reconciled after so many seconds."""
        self._kube = kube
        self._cache = cache
        self._instance = instance
        self._look_again = look_again
        self._clock = clock
        self._untold: collections.deque[Object] = collections.deque()
        self._telling: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    async def write(self, kind: Kind, resource: Resource, outcome: Outcome, **fields: Any) -> bool:
        """Bring an object's status to this outcome and these fields of its status model.

        Returns whether the outcome was news, and told by an Event.
        """
        before = self._cache.get(kind.kind, resource.namespace, resource.name)
        if before is None or before["metadata"]["uid"] != resource.metadata.uid:
            return False
        now = datetime.datetime.now(datetime.UTC)
        old = before.get("status") or {}
        conditions = summarise(
            previous=old.get("conditions") or (),
            outcome=outcome,
            generation=resource.metadata.generation,
            now=now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        )
        model = type(resource).model_fields["status"].annotation
        if model is None:
            raise TypeError(f"{kind.kind} has no status")
        generation = resource.metadata.generation
        status = model.model_validate({**fields, "conditions": conditions, "observed_generation": generation})
        draft = self._cache.draft(kind.kind, resource.namespace, resource.name)
        written = draft.written if draft else old
        if status == model.model_validate(written):
            if draft:  # what was to be told has passed
                self._cache.drop_draft(kind.kind, resource.namespace, resource.name)
                self._cache.put({**before, "status": written})
            return False
        manifest = status.to_manifest()
        if self._put_off(before, manifest, draft, written=written):
            return False
        return await self._send(kind, resource, outcome, manifest, written=written)

    def _put_off(self, obj: Object, status: Object, draft: Draft | None, *, written: Object) -> bool:
        """Keep a status for later if it can wait, and return whether it does."""
        now = self._clock()
        since = draft.since if draft else now
        left = since + PASSING_SECONDS - now
        if left <= 0 or not _is_passing(written, status):
            return False
        metadata = obj["metadata"]
        self._cache.put_draft(obj, Draft(uid=metadata["uid"], status=status, since=since, written=written))
        self._look_again(Key(obj["kind"], metadata["namespace"], metadata["name"]), left)
        return True

    async def _send(
        self, kind: Kind, resource: Resource, outcome: Outcome, status: Object, *, written: Object
    ) -> bool:
        """Write a status, and tell whether it was news."""
        place = resource.namespace, resource.name
        try:
            answer = await self._kube.apply_status(kind, *place, status, uid=resource.metadata.uid)
        except (Conflict, NotFound):
            return False  # deleted meanwhile: there is nobody to tell
        self._cache.drop_draft(kind.kind, *place)
        if answer["metadata"].get("generation") == resource.metadata.generation:
            self._cache.put(answer)  # a spec that came with it is for the watch to bring, as news
        if _turn(written) == _turn(answer["status"]):
            return False
        log.info("%s: %s", outcome.reason, outcome.message, extra=_about(resource))
        warning = isinstance(outcome, Stalled)
        self.tell(resource, reason=outcome.reason, message=outcome.message, warning=warning)
        return True

    def tell(self, resource: Resource, *, reason: str, message: str, warning: bool = False) -> None:
        """Make an Event about an object, in its turn and a moment later: nothing waits for it."""
        now = datetime.datetime.now(datetime.UTC)
        kind = type(resource).KIND
        event = {
            "metadata": {
                "name": f"{resource.name[:200]}.{uuid.uuid4().hex[:16]}",
                "namespace": resource.namespace,
            },
            "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": "triton-operator",
            "reportingInstance": self._instance,
            "action": "Reconcile",
            "reason": reason,
            "type": "Warning" if warning else "Normal",
            "note": shorten(message, NOTE_LENGTH),
            "regarding": {
                "apiVersion": kind.api_version,
                "kind": kind.kind,
                "namespace": resource.namespace,
                "name": resource.name,
                "uid": resource.metadata.uid,
            },
        }
        self._untold.append(event)
        if self._telling is None or self._telling.done():
            self._telling = asyncio.create_task(self._tell())

    async def close(self) -> None:
        """Tell at once what is still to be told."""
        self._closing.set()
        if self._telling is not None:
            await asyncio.gather(self._telling, return_exceptions=True)

    async def _tell(self) -> None:
        while self._untold:
            pause = min(EVENT_SECONDS, ALL_EVENTS_SECONDS / len(self._untold))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), pause)
            try:
                await self._kube.create(EVENT, self._untold.popleft())
            except KubeError as error:  # an Event is a courtesy; the status says the same
                log.debug("no Event: %s", error)


def _about(resource: Resource) -> dict[str, object]:
    kind = type(resource).KIND.kind
    return about(kind, resource.namespace, resource.name, generation=resource.metadata.generation)


def _is_passing(before: Object, after: Object) -> bool:
    """Tell whether a status says no more than how far things are."""
    return _truths(before) == _truths(after)


def _truths(status: Object) -> object:
    return status.get("observedGeneration"), [
        (c["type"], c["status"]) for c in status.get("conditions") or ()
    ]


def _turn(status: Object) -> object:
    """Return what an Event is worth: who is ready, and why not."""
    return [
        (c["type"], c["status"], c["reason"])
        for c in status.get("conditions") or ()
        if c["type"] in ("Ready", "Stalled")
    ]
