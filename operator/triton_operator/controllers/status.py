"""One status write at the end of a reconcile, and an Event when the story takes a turn."""

from __future__ import annotations

import asyncio
import datetime
import logging
import uuid
from typing import Any

from triton_operator.clients.kube import EVENT, Conflict, Kind, Kube, KubeError, NotFound, Object
from triton_operator.controllers.cache import Cache
from triton_operator.logs import about
from triton_operator.plan.conditions import shorten, summarise
from triton_operator.plan.outcome import Outcome, Stalled
from triton_operator.resources.common import Resource

log = logging.getLogger(__name__)

NOTE_LENGTH = 1024
"""Most characters that the API server takes in an Event's note."""


class StatusWriter:
    """Writes statuses when, and only when, they differ from what is there."""

    def __init__(self, kube: Kube, cache: Cache, *, instance: str) -> None:
        self._kube = kube
        self._cache = cache
        self._instance = instance
        self._telling: set[asyncio.Task[None]] = set()

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
        if status == model.model_validate(old):
            return False
        try:
            answer = await self._kube.apply_status(
                kind, resource.namespace, resource.name, status.to_manifest(), uid=resource.metadata.uid
            )
        except (Conflict, NotFound):
            return False  # deleted meanwhile: there is nobody to tell
        if answer["metadata"].get("generation") == generation:
            self._cache.put(answer)  # a spec that came with it is for the watch to bring, as news
        if _turn(old) == _turn(answer["status"]):
            return False
        log.info("%s: %s", outcome.reason, outcome.message, extra=_about(resource))
        warning = isinstance(outcome, Stalled)
        self.tell(resource, reason=outcome.reason, message=outcome.message, warning=warning)
        return True

    def tell(self, resource: Resource, *, reason: str, message: str, warning: bool = False) -> None:
        """Make an Event about an object, while others go on: nothing waits for it."""
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
        telling = asyncio.create_task(self._post(event))
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)

    async def close(self) -> None:
        """Let what is being told be told."""
        await asyncio.gather(*self._telling, return_exceptions=True)

    async def _post(self, event: Object) -> None:
        try:
            await self._kube.create(EVENT, event)
        except KubeError as error:  # an Event is a courtesy; the status says the same
            log.debug("no Event: %s", error)


def _about(resource: Resource) -> dict[str, object]:
    kind = type(resource).KIND.kind
    return about(kind, resource.namespace, resource.name, generation=resource.metadata.generation)


def _turn(status: Object) -> object:
    """Return what an Event is worth: who is ready, and why not."""
    return [
        (c["type"], c["status"], c["reason"])
        for c in status.get("conditions") or ()
        if c["type"] in ("Ready", "Stalled")
    ]
