"""Which objects must be looked at again when one has changed."""

from __future__ import annotations

from collections.abc import Iterator

from triton_operator.clients.kube import (
    ENGINE,
    INFERENCE_MODEL,
    JOB,
    MODEL_REPOSITORY,
    NODE,
    POD,
    TRITON_SERVER,
    Object,
)
from triton_operator.controllers.cache import Cache
from triton_operator.controllers.queue import Key
from triton_operator.plan import names, nodes

OWN_KINDS = frozenset(kind.kind for kind in (INFERENCE_MODEL, TRITON_SERVER, MODEL_REPOSITORY, ENGINE))
_TOLD = frozenset({INFERENCE_MODEL.kind, TRITON_SERVER.kind})
"""Of these we write nothing but the status, at the end of a reconcile."""
_BY_LABEL = {
    names.SERVER: TRITON_SERVER.kind,
    names.REPOSITORY: MODEL_REPOSITORY.kind,
    names.ENGINE: ENGINE.kind,
}


def keys_for(cache: Cache, obj: Object, *, before: Object | None = None) -> set[Key]:
    """Return the keys that an object's coming, change or going concerns, its own included.

    `before` is the object as it was known; a change of its status alone concerns few.
    """
    if obj["kind"] == NODE.kind:
        return set() if before is not None and nodes.is_same(before, obj) else set(_servers_with_gpus(cache))
    if before is not None and _is_echo(before, obj):
        return set()
    if before is not None and obj["kind"] in OWN_KINDS and _same_spec(before, obj):
        return set(_keys_of_status(cache, obj))
    return set(_keys(cache, obj))


def keys_on_server(cache: Cache, namespace: str, server: str) -> set[Key]:
    """Return the keys of a server and of the models that name it."""
    own = Key(TRITON_SERVER.kind, namespace, server)
    return {own, *_models_on(cache, namespace, {server})}


def keys_on_volume(cache: Cache, namespace: str, repository: str, servers: frozenset[str] | None) -> set[Key]:
    """Return the keys of what stands on a volume, or of some servers when only their trees changed."""
    if servers is None:
        return keys_on_repository(cache, namespace, repository)
    return {key for server in servers for key in keys_on_server(cache, namespace, server)}


def keys_on_repository(cache: Cache, namespace: str, repository: str) -> set[Key]:
    """Return the keys of a repository and of everything that stands on it."""
    servers = {
        body["metadata"]["name"]
        for body in cache.all(TRITON_SERVER.kind, namespace)
        if body["spec"].get("repository") == repository
    }
    engines = {
        Key(ENGINE.kind, namespace, body["metadata"]["name"])
        for body in cache.all(ENGINE.kind, namespace)
        if body["spec"]["repository"] == repository
    }
    on_servers = {Key(TRITON_SERVER.kind, namespace, server) for server in servers}
    return {
        Key(MODEL_REPOSITORY.kind, namespace, repository),
        *on_servers,
        *engines,
        *_models_on(cache, namespace, servers),
    }


def _is_echo(before: Object, obj: Object) -> bool:
    """Tell whether a watch brings what our own write answered: who wrote it has told whom it concerns."""
    same = before["metadata"].get("resourceVersion") == obj["metadata"].get("resourceVersion")
    return same and obj["kind"] in _TOLD and "deletionTimestamp" not in obj["metadata"]


def _same_spec(before: Object, obj: Object) -> bool:
    old, new = before["metadata"], obj["metadata"]
    same = old["uid"] == new["uid"] and old.get("generation") == new.get("generation")
    return bool(same and old.get("deletionTimestamp") == new.get("deletionTimestamp"))


def _keys_of_status(cache: Cache, obj: Object) -> Iterator[Key]:
    yield Key(obj["kind"], obj["metadata"]["namespace"], obj["metadata"]["name"])
    # Whoever waits for an engine looks by itself meanwhile, and its progress is written every few seconds.
    if obj["kind"] == ENGINE.kind and (obj.get("status") or {}).get("progress") is None:
        yield from _around_engine(cache, obj)


def _keys(cache: Cache, obj: Object) -> Iterator[Key]:
    kind, namespace, name = obj["kind"], obj["metadata"].get("namespace", ""), obj["metadata"]["name"]
    if kind not in OWN_KINDS:
        yield from _keys_of_child(cache, obj)
        return
    yield Key(kind, namespace, name)
    if kind == INFERENCE_MODEL.kind:
        yield from _around_model(cache, obj)
    elif kind == TRITON_SERVER.kind:
        yield from keys_on_server(cache, namespace, name)
        repository = (obj.get("spec") or {}).get("repository")
        if repository:
            yield Key(MODEL_REPOSITORY.kind, namespace, repository)
    elif kind == MODEL_REPOSITORY.kind:
        yield from keys_on_repository(cache, namespace, name)
    else:
        yield from _around_engine(cache, obj)


def _around_model(cache: Cache, obj: Object) -> Iterator[Key]:
    namespace = obj["metadata"]["namespace"]
    servers = set((obj.get("spec") or {}).get("servers") or ())
    for server in servers:
        yield Key(TRITON_SERVER.kind, namespace, server)
    yield from _models_on(cache, namespace, servers)  # one of the same name may have to step in
    for entry in (obj.get("status") or {}).get("versions") or ():
        for engine in entry.get("engines") or ():
            yield Key(ENGINE.kind, namespace, engine)


def _around_engine(cache: Cache, obj: Object) -> Iterator[Key]:
    namespace, name = obj["metadata"]["namespace"], obj["metadata"]["name"]
    for body in cache.all(INFERENCE_MODEL.kind, namespace):
        entries = (body.get("status") or {}).get("versions") or ()
        if any(name in (entry.get("engines") or ()) for entry in entries):
            yield Key(INFERENCE_MODEL.kind, namespace, body["metadata"]["name"])
    for body in cache.all(ENGINE.kind, namespace):
        if body["spec"].get("from") == name:
            yield Key(ENGINE.kind, namespace, body["metadata"]["name"])
    repository = (obj.get("spec") or {}).get("repository")
    if repository:
        yield Key(MODEL_REPOSITORY.kind, namespace, repository)


def _keys_of_child(cache: Cache, obj: Object) -> Iterator[Key]:
    namespace = obj["metadata"].get("namespace", "")
    labels = obj["metadata"].get("labels") or {}
    for label, kind in _BY_LABEL.items():
        if label in labels:
            yield Key(kind, namespace, labels[label])
    if names.RESOLVE in labels:
        yield from _owner_of_lookup(cache, obj, labels[names.RESOLVE])


def _owner_of_lookup(cache: Cache, obj: Object, base: str) -> Iterator[Key]:
    namespace = obj["metadata"]["namespace"]
    found = cache.labelled(JOB.kind, namespace, {names.RESOLVE: base}) if obj["kind"] == POD.kind else [obj]
    for job in found:
        for owner in job["metadata"].get("ownerReferences") or ():
            if owner["kind"] == INFERENCE_MODEL.kind:
                yield Key(INFERENCE_MODEL.kind, namespace, owner["name"])


def _servers_with_gpus(cache: Cache) -> Iterator[Key]:
    for body in cache.all(TRITON_SERVER.kind):
        if (body.get("spec") or {}).get("gpu") is not None:
            yield Key(TRITON_SERVER.kind, body["metadata"]["namespace"], body["metadata"]["name"])


def _models_on(cache: Cache, namespace: str, servers: set[str]) -> Iterator[Key]:
    for body in cache.all(INFERENCE_MODEL.kind, namespace):
        if servers & set(body["spec"].get("servers") or ("default",)):
            yield Key(INFERENCE_MODEL.kind, namespace, body["metadata"]["name"])
