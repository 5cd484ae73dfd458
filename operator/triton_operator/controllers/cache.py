"""What the watches saw last, and what our own writes answered since."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar, cast

from triton_operator.resources.common import Resource

Object = dict[str, Any]
Place = tuple[str, str]
"""Namespace and name."""

Kind = TypeVar("Kind", bound=Resource)


@dataclasses.dataclass(frozen=True)
class Draft:
    """A status of ours that the API server doesn't have yet: since when, and what it has instead."""

    uid: str
    status: Object
    since: float
    written: Object


class Cache:
    """Objects by kind, namespace and name; the newer resourceVersion wins.

    A reconcile reads here instead of asking the API server. Our own writes are put in with
    the server's answer, so that the next reconcile doesn't repeat them when the watch lags.
    A status that is still to be written is a draft: whatever the watch brings, it is read here.
    """

    def __init__(self) -> None:
        self._objects: dict[str, dict[Place, Object]] = {}
        self._read: dict[tuple[str, Place], tuple[Object, Resource]] = {}  # as they were parsed last
        self._drafts: dict[tuple[str, Place], Draft] = {}
        self._buried: dict[str, int] = {}  # UID → last version, in the order of their deletion

    def put(self, obj: Object) -> bool:
        """Remember an object; return False when it is older than what is known.

        The version that is known already counts as news: after a write of our own the watch
        brings the very object that we put in, and what depends on it was not told yet.
        """
        known = self._objects.setdefault(obj["kind"], {})
        place = _place(obj)
        before = known.get(place)
        uid = obj["metadata"]["uid"]
        if _version(obj) <= self._buried.get(uid, -1):
            return False
        if before is not None and _version(obj) < _version(before):
            return False
        self._buried.pop(uid, None)  # a watch by labels says "deleted" of what lost its label
        draft = self._drafts.get((obj["kind"], place))
        known[place] = obj if draft is None or draft.uid != uid else {**obj, "status": draft.status}
        return True

    def draft(self, kind: str, namespace: str, name: str) -> Draft | None:
        """Return the status of an object that is still to be written, or None."""
        return self._drafts.get((kind, (namespace, name)))

    def put_draft(self, obj: Object, draft: Draft) -> None:
        """Have a known object read with a status that is still to be written."""
        self._drafts[obj["kind"], _place(obj)] = draft
        self.put(obj)

    def drop_draft(self, kind: str, namespace: str, name: str) -> None:
        """Take a status for written: it is read until the watch brings another."""
        self._drafts.pop((kind, (namespace, name)), None)

    def remove(self, obj: Object) -> bool:
        """Forget a deleted object, but not a later one of the same name."""
        known = self._objects.setdefault(obj["kind"], {})
        uid = obj["metadata"]["uid"]
        before = known.get(_place(obj))
        ours = before is not None and before["metadata"]["uid"] == uid
        self._bury(uid, max(_version(obj), _version(before) if before is not None and ours else -1))
        if ours:
            del known[_place(obj)]
            self._read.pop((obj["kind"], _place(obj)), None)
            self._drafts.pop((obj["kind"], _place(obj)), None)
        return ours

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """Return an object, or None."""
        return self._objects.get(kind, {}).get((namespace, name))

    def all(self, kind: str, namespace: str | None = None) -> list[Object]:
        """Return the objects of a kind in a namespace (or everywhere), in the order of their names."""
        known = self._objects.get(kind, {})
        places = sorted(place for place in known if namespace is None or place[0] == namespace)
        return [known[place] for place in places]

    def read(self, kind: type[Kind], namespace: str, name: str) -> Kind | None:
        """Return an object of one of our kinds as its type, or None; each state of it is parsed once."""
        body = self.get(kind.KIND.kind, namespace, name)
        return self._parsed(kind, body) if body is not None else None

    def read_all(self, kind: type[Kind], namespace: str | None = None) -> list[Kind]:
        """Return the objects of one of our kinds as `all` does, as their type."""
        return [self._parsed(kind, body) for body in self.all(kind.KIND.kind, namespace)]

    def _parsed(self, kind: type[Kind], body: Object) -> Kind:
        key = (kind.KIND.kind, _place(body))
        known = self._read.get(key)
        if known is None or known[0] is not body:
            known = self._read[key] = (body, kind.parse(body))
        return cast(Kind, known[1])

    def labelled(self, kind: str, namespace: str, labels: dict[str, str]) -> list[Object]:
        """Return the objects that carry all these labels."""
        return [
            obj
            for obj in self.all(kind, namespace)
            if labels.items() <= (obj["metadata"].get("labels") or {}).items()
        ]

    def uids(self, kind: str) -> frozenset[str]:
        """Return the UIDs of all known objects of a kind."""
        return frozenset(obj["metadata"]["uid"] for obj in self.all(kind))

    def replace(self, kind: str, objects: list[Object], *, known_before: frozenset[str]) -> list[Object]:
        """Take a fresh list of a kind for the truth and return what changed by it.

        What was known before the list was asked for, and isn't in it, is gone even if no
        watch said so. What came to be known meanwhile stays.
        """
        listed = {obj["metadata"]["uid"] for obj in objects}
        vanished = [o for o in self.all(kind) if o["metadata"]["uid"] in known_before - listed]
        return [o for o in vanished if self.remove(o)] + [o for o in objects if self.put(o)]

    def _bury(self, uid: str, version: int) -> None:
        self._buried[uid] = max(version, self._buried.pop(uid, -1))
        while len(self._buried) > _GRAVES:
            del self._buried[next(iter(self._buried))]


_GRAVES = 10_000
"""How many deleted UIDs are remembered, against late answers that would bring them back."""


def _place(obj: Object) -> Place:
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def _version(obj: Object) -> int:
    return int(obj["metadata"].get("resourceVersion") or -1)
