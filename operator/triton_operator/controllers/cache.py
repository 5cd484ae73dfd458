"""What the watches saw last, and what our own writes answered since."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]
Place = tuple[str, str]
"""Namespace and name."""


class Cache:
    """Objects by kind, namespace and name; the newer resourceVersion wins.

    A reconcile reads here instead of asking the API server. Our own writes are put in with
    the server's answer, so that the next reconcile doesn't repeat them when the watch lags.
    """

    def __init__(self) -> None:
        self._objects: dict[str, dict[Place, Object]] = {}
        self._buried: dict[str, None] = {}  # UIDs in the order of their deletion

    def put(self, obj: Object) -> bool:
        """Remember an object; return False when it is not newer than what is known."""
        known = self._objects.setdefault(obj["kind"], {})
        place = _place(obj)
        before = known.get(place)
        uid = obj["metadata"]["uid"]
        if uid in self._buried:
            return False
        if before is not None and before["metadata"]["uid"] == uid and _version(obj) <= _version(before):
            return False
        known[place] = obj
        return True

    def remove(self, obj: Object) -> bool:
        """Forget a deleted object, but not a later one of the same name."""
        known = self._objects.setdefault(obj["kind"], {})
        uid = obj["metadata"]["uid"]
        self._bury(uid)
        before = known.get(_place(obj))
        if before is None or before["metadata"]["uid"] != uid:
            return False
        del known[_place(obj)]
        return True

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """Return an object, or None."""
        return self._objects.get(kind, {}).get((namespace, name))

    def all(self, kind: str, namespace: str | None = None) -> list[Object]:
        """Return the objects of a kind in a namespace (or everywhere), in the order of their names."""
        known = self._objects.get(kind, {})
        places = sorted(place for place in known if namespace is None or place[0] == namespace)
        return [known[place] for place in places]

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

    def _bury(self, uid: str) -> None:
        self._buried[uid] = None
        while len(self._buried) > _GRAVES:
            del self._buried[next(iter(self._buried))]


_GRAVES = 10_000
"""How many deleted UIDs are remembered, against late answers that would bring them back."""


def _place(obj: Object) -> Place:
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def _version(obj: Object) -> int:
    return int(obj["metadata"]["resourceVersion"])
