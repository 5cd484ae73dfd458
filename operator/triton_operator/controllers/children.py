"""Children: created by POST, so that a foreign object is noticed; updated by apply; never adopted."""

from __future__ import annotations

import logging

from triton_operator.clients.kube import SECRET, AlreadyExists, Conflict, Kind, Kube, Object, Terminating
from triton_operator.controllers.cache import Cache
from triton_operator.logs import about
from triton_operator.plan import drift, names, pods
from triton_operator.plan.outcome import OutcomeError, Stalled, Waiting

log = logging.getLogger(__name__)


class Children:
    """Keeps the objects that stand for a resource in the cluster as the plan has them."""

    def __init__(self, kube: Kube, cache: Cache) -> None:
        self._kube = kube
        self._cache = cache
        self._settled: dict[str, tuple[str, object]] = {}  # UID → digest applied, what the server made of it

    async def ensure(self, kind: Kind, manifest: Object) -> Object:
        """Create the object, or put back what differs, and return it as it is now.

        Raises:
            OutcomeError: Stalled with `NameConflict` when a foreign object has the name.
        """
        desired = drift.stamped(manifest)
        metadata = manifest["metadata"]
        live = self._cache.get(kind.kind, metadata["namespace"], metadata["name"])
        if live is None:
            live = await self._create(kind, desired)
        self._refuse_foreign(kind, desired, live)
        if self._in_sync(desired, live):
            return live
        return await self._apply(kind, desired, live)

    async def create_once(self, kind: Kind, manifest: Object) -> Object:
        """Create an object that is never changed afterwards; one of ours that exists is fine."""
        live = await self._create(kind, manifest)
        self._refuse_foreign(kind, manifest, live)
        return live

    async def create(self, kind: Kind, manifest: Object) -> Object:
        """Create an object.

        Raises:
            AlreadyExists: one of that name is there.
            OutcomeError: Waiting, as the namespace is being deleted.
        """
        try:
            live = await self._kube.create(kind, manifest)
        except Terminating as error:
            message = f"namespace {manifest['metadata']['namespace']} is being deleted"
            raise OutcomeError(Waiting("NamespaceTerminating", message)) from error
        self._log("created", kind, manifest)
        return live

    async def create_secret(self, manifest: Object) -> None:
        """Create a Secret that we may not read; its name, which only we can form, says it is ours."""
        try:
            await self.create(SECRET, manifest)
        except AlreadyExists:
            return

    async def delete(self, kind: Kind, live: Object) -> None:
        """Delete an object of ours, and none that took its name since."""
        metadata = live["metadata"]
        try:
            await self._kube.delete(kind, metadata["namespace"], metadata["name"], uid=metadata["uid"])
        except Conflict:
            return
        self._cache.remove(live)
        self._log("deleted", kind, live)

    async def _create(self, kind: Kind, manifest: Object) -> Object:
        metadata = manifest["metadata"]
        try:
            live = await self.create(kind, manifest)
        except AlreadyExists:
            found = await self._kube.get(kind, metadata["namespace"], metadata["name"])
            if found is None:  # gone in between
                message = f"{kind.kind} {metadata['name']} is being replaced"
                raise OutcomeError(Waiting("Replacing", message, after=1.0)) from None
            live = found
        if (live["metadata"].get("labels") or {}).get(names.MANAGED_BY) == names.MANAGER:
            self._cache.put(live)
        return live

    async def _apply(self, kind: Kind, desired: Object, live: Object) -> Object:
        body = {**desired, "metadata": {**desired["metadata"], "uid": live["metadata"]["uid"]}}
        try:
            answer = await self._kube.apply(kind, body)
        except Conflict as error:
            message = f"{kind.kind} {live['metadata']['name']} changed while it was being updated"
            raise OutcomeError(Waiting("Replacing", message, after=1.0)) from error
        self._cache.put(answer)
        self._settled[live["metadata"]["uid"]] = (names.digest(desired), _content(answer))
        self._log("updated", kind, desired)
        return answer

    def _in_sync(self, desired: Object, live: Object) -> bool:
        wanted = {k: desired["metadata"].get(k) for k in ("labels", "annotations", "ownerReferences")}
        if not drift.holds(wanted, live["metadata"]):
            return False
        if drift.holds({k: v for k, v in desired.items() if k != "metadata"}, live):
            return True
        # The server may write a value differently than we do; then what it made of it is right.
        return self._settled.get(live["metadata"]["uid"]) == (names.digest(desired), _content(live))

    def _refuse_foreign(self, kind: Kind, desired: Object, live: Object) -> None:
        metadata = live["metadata"]
        owners = desired["metadata"].get("ownerReferences")
        labelled = (metadata.get("labels") or {}).get(names.MANAGED_BY) == names.MANAGER
        if owners and pods.is_owned_by(live, owners[0]["uid"]):
            if "deletionTimestamp" in metadata:
                raise OutcomeError(
                    Waiting("Replacing", f"{kind.kind} {metadata['name']} is being deleted", after=1.0)
                )
            return
        if not owners and labelled:
            return
        if owners and labelled and _had_same_owner(live, owners[0]):
            message = f"{kind.kind} {metadata['name']} of a former {owners[0]['kind']} is being deleted"
            raise OutcomeError(Waiting("Replacing", message, after=1.0))
        message = (
            f"{kind.kind} {metadata['name']} exists and is not ours; it is left alone: "
            f"rename or delete it, or give this object another name"
        )
        raise OutcomeError(Stalled("NameConflict", message, after=30.0))

    def _log(self, verb: str, kind: Kind, manifest: Object) -> None:
        metadata = manifest["metadata"]
        log.info("%s %s", verb, kind.kind, extra=about(kind.kind, metadata["namespace"], metadata["name"]))


def _had_same_owner(live: Object, owner: Object) -> bool:
    references = live["metadata"].get("ownerReferences") or []
    return any((o["kind"], o["name"]) == (owner["kind"], owner["name"]) for o in references)


def _content(obj: Object) -> object:
    """Return what changes when the object's content does, and not with its status."""
    metadata = obj["metadata"]
    return metadata.get("generation") or metadata["resourceVersion"]
