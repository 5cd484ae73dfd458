"""The Kubernetes API, thin: what is asked for is what is sent, and nothing is cached.

The official client loads credentials, keeps connections and renews the pod's token; requests
are plain JSON, because the operator's objects are.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import aiohttp
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import (  # type: ignore[attr-defined,unused-ignore]
    ConfigException,
    load_incluster_config,
    load_kube_config,
)

from engine_builder import faults
from triton_operator.clients.answers import decode, lines, replaced, typed, unreachable
from triton_operator.clients.objects import (
    ACCESS_REVIEW,
    CLAIM,
    DEPLOYMENT,
    ENGINE,
    EVENT,
    INFERENCE_MODEL,
    JOB,
    LEASE,
    MODEL_REPOSITORY,
    NAMESPACE,
    NODE,
    POD,
    POD_DISRUPTION_BUDGET,
    SECRET,
    SERVICE,
    TRITON_SERVER,
    AlreadyExists,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    Kind,
    KubeError,
    NotFound,
    Object,
    Terminating,
    Unavailable,
    WatchEvent,
    error_of,
)
from triton_operator.clients.watch import Page, watch

if TYPE_CHECKING:
    from types import TracebackType

__all__ = [
    "ACCESS_REVIEW",
    "CLAIM",
    "DEPLOYMENT",
    "ENGINE",
    "EVENT",
    "FIELD_MANAGER",
    "INFERENCE_MODEL",
    "JOB",
    "LEASE",
    "MODEL_REPOSITORY",
    "NAMESPACE",
    "NODE",
    "POD",
    "POD_DISRUPTION_BUDGET",
    "SECRET",
    "SERVICE",
    "TRITON_SERVER",
    "AlreadyExists",
    "Conflict",
    "Forbidden",
    "Gone",
    "Invalid",
    "Kind",
    "Kube",
    "KubeError",
    "NotFound",
    "Object",
    "Terminating",
    "Unavailable",
    "WatchEvent",
]

FIELD_MANAGER = "triton-operator"
REQUEST_SECONDS = 30.0
PAGE_SIZE = 500
SILENCE_SECONDS = 150.0
"""A watch that says nothing for so long is taken for dead: bookmarks come every minute."""

_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
_APPLY = "application/apply-patch+yaml"
_JSON_PATCH = "application/json-patch+json"

# inside Kube, `list` is its method
_Objects = list[Object]
_Patch = list[Object]

Keep = Callable[[Object], Object]
"""Returns what is worth keeping of an object, its identity and version included."""

WriteHook = Callable[[str, Kind], None]
"""Called with verb and kind after every write that the API server took."""


def _whole(obj: Object) -> Object:
    return obj


class Kube:
    """Requests to one API server; use it as an async context manager, or call `close`."""

    def __init__(self, api: ApiClient, *, on_write: WriteHook | None = None) -> None:
        """Use a client of the official library; `connect` makes one."""
        self._api = api
        self._on_write = on_write

    @classmethod
    async def connect(cls, *, kubeconfig: str | None = None, on_write: WriteHook | None = None) -> Self:
        """Load credentials: the kubeconfig named, else the pod's service account, else kubectl's default.

        Raises:
            Unavailable: no credentials were found, or they can't be read.
        """
        configuration = Configuration()
        try:
            if kubeconfig is None and _in_cluster():
                load_incluster_config(client_configuration=configuration)
            else:
                await load_kube_config(config_file=kubeconfig, client_configuration=configuration)
        except (ConfigException, OSError) as error:
            raise Unavailable(status=0, reason="NoCredentials", message=f"kubeconfig: {error}") from error
        return cls(ApiClient(configuration), on_write=on_write)

    async def close(self) -> None:
        """Close all connections."""
        await self._api.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """Return an object, or None when there is none of that name."""
        try:
            return await self._json("GET", kind, kind.path(namespace=namespace, name=name))
        except NotFound:
            return None

    async def list(
        self, kind: Kind, *, namespace: str | None = None, labels: str = "", keep: Keep = _whole
    ) -> list[Object]:
        """Return all objects that a label selector admits, of one namespace or of all.

        Of large objects `keep` cuts off what nobody needs, page by page.
        """
        return (await self._list(kind, namespace, labels, keep=keep)).objects

    async def may(self, verb: str, kind: Kind) -> bool:
        """Tell whether the operator may do this to the objects of a kind, in the whole cluster."""
        attributes = {"group": kind.api_version.rpartition("/")[0], "resource": kind.plural, "verb": verb}
        body = typed(ACCESS_REVIEW, {"spec": {"resourceAttributes": attributes}})
        answer = await self._json("POST", ACCESS_REVIEW, ACCESS_REVIEW.path(), body=body)
        return bool(answer["status"]["allowed"])

    async def create(self, kind: Kind, body: Object) -> Object:
        """Create an object; one of the same name is never touched.

        Raises:
            AlreadyExists: an object of that name is there, ours or another's.
        """
        try:
            return await self._json(
                "POST",
                kind,
                kind.path(namespace=_namespace(body)),
                query={"fieldManager": FIELD_MANAGER},
                body=typed(kind, body),
                verb="create",
            )
        except Conflict as error:
            raise AlreadyExists(status=409, reason=error.reason, message=error.message) from error

    async def replace(self, kind: Kind, body: Object) -> Object:
        """Replace an object whole; `metadata.resourceVersion` refuses one that changed meanwhile.

        Raises:
            Conflict: it changed since it was read.
        """
        name = str(body["metadata"]["name"])
        return await self._json(
            "PUT",
            kind,
            kind.path(namespace=_namespace(body), name=name),
            query={"fieldManager": FIELD_MANAGER},
            body=typed(kind, body),
            verb="update",
        )

    async def apply(self, kind: Kind, body: Object) -> Object:
        """Make the fields given, and of ours only those, stand in an object that exists.

        Server-side apply creates and adopts whatever has the name, so the UID must be given: it
        makes the server refuse a foreign object, and one that is not there any more.

        Raises:
            ValueError: the body carries no `metadata.uid`.
            Conflict: the object of that name has another UID, or is gone.
        """
        if not body.get("metadata", {}).get("uid"):
            raise ValueError(f"{kind.kind}: apply needs metadata.uid, or it would adopt a foreign object")
        path = kind.path(namespace=_namespace(body), name=str(body["metadata"]["name"]))
        try:
            await self._claim_created_fields(kind, path, uid=str(body["metadata"]["uid"]))
            return await self._json(
                "PATCH",
                kind,
                path,
                query={"fieldManager": FIELD_MANAGER, "force": "true"},
                body=typed(kind, body),
                content_type=_APPLY,
                verb="apply",
            )
        except NotFound as error:
            raise replaced(kind, path) from error
        except Invalid as error:
            if "metadata.uid" not in error.message:
                raise
            raise replaced(kind, path) from error

    async def apply_status(
        self, kind: Kind, namespace: str, name: str, status: Object, *, uid: str
    ) -> Object:
        """Replace the whole status of a custom resource, whatever its resource version is now.

        Raises:
            Conflict: the object of that name has another UID.
            NotFound: there is no such object.
        """
        # A merge patch would keep fields that are no longer given, a PUT needs a fresh resource
        # version, an apply keeps list entries that others wrote: a JSON patch does none of that.
        patch: _Patch = [
            {"op": "test", "path": "/metadata/uid", "value": uid},
            {"op": "add", "path": "/status", "value": status},
        ]
        path = kind.path(namespace=namespace, name=name, subresource="status")
        try:
            return await self._patch(kind, path, patch, verb="status")
        except Invalid as error:
            # a failed test is answered like any other error of the request, without a word of why
            page = await self._list(kind, namespace, "", fields=f"metadata.name={name}")
            if any(found["metadata"]["uid"] != uid for found in page.objects):
                raise replaced(kind, path) from error
            raise

    async def set_label(
        self, kind: Kind, namespace: str, name: str, label: str, value: str, *, uid: str
    ) -> Object:
        """Set one label of an object that somebody else keeps.

        Raises:
            Conflict: it is gone, or the object of that name has another UID.
        """
        add = {"op": "add", "path": f"/metadata/labels/{_escaped(label)}", "value": value}
        where = kind.path(namespace=namespace, name=name)
        return await self._patch_known(kind, where, [add], uid=uid, verb="label")

    async def scale(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        replicas: int,
        *,
        annotation: tuple[str, str | None],
        uid: str,
    ) -> Object:
        """Set the replicas of an object, and an annotation (or take it away: None) that says why, in one.

        The object must have annotations, and the one that is taken away among them.

        Raises:
            Conflict: it is gone, or is not as it was known.
        """
        key, value = annotation
        path = f"/metadata/annotations/{_escaped(key)}"
        annotate: Object = {"op": "remove", "path": path}
        if value is not None:
            annotate = {"op": "add", "path": path, "value": value}
        scale = {"op": "replace", "path": "/spec/replicas", "value": replicas}
        where = kind.path(namespace=namespace, name=name)
        return await self._patch_known(kind, where, [scale, annotate], uid=uid, verb="scale")

    async def _patch_known(
        self, kind: Kind, path: str, operations: Sequence[Object], *, uid: str, verb: str
    ) -> Object:
        """Patch the object of this UID alone; `Conflict` if it is gone, or not as the operations want it."""
        patch: _Patch = [{"op": "test", "path": "/metadata/uid", "value": uid}, *operations]
        try:
            return await self._patch(kind, path, patch, verb=verb)
        except (Invalid, NotFound) as error:  # a failed test is answered without a word of why
            raise replaced(kind, path) from error

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str) -> None:
        """Delete an object and, in the background, what it owns; one that is gone already is fine.

        Raises:
            Conflict: the object of that name has another UID.
        """
        options = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        try:
            await self._json(
                "DELETE", kind, kind.path(namespace=namespace, name=name), body=options, verb="delete"
            )
        except NotFound:
            return

    def watch(
        self, kind: Kind, *, labels: str = "", namespace: str | None = None, keep: Keep = _whole
    ) -> AsyncIterator[WatchEvent]:
        """Yield what exists as ADDED, SYNCED once, then changes, for ever.

        It outlives disconnects, restarts of the API server and versions that are no longer
        kept, with backoff; the log says when it breaks and when it works again. `keep` is as in `list`.
        """
        what = f"watch of {kind.plural}" + (f" with {labels}" if labels else "")
        return watch(
            list_all=lambda: self._list(kind, namespace, labels, keep=keep),
            stream=lambda version, seconds: self._stream(kind, namespace, labels, version, seconds),
            what=what,
            keep=keep,
        )

    async def _list(
        self, kind: Kind, namespace: str | None, labels: str, *, fields: str = "", keep: Keep = _whole
    ) -> Page:
        objects: _Objects = []
        query = {"limit": str(PAGE_SIZE), "labelSelector": labels, "fieldSelector": fields}
        while True:
            page = await self._json("GET", kind, kind.path(namespace=namespace), query=query)
            objects += [keep(typed(kind, item)) for item in page.get("items") or ()]
            metadata = page.get("metadata") or {}
            if not metadata.get("continue"):
                return Page(objects=objects, version=str(metadata.get("resourceVersion", "")))
            query["continue"] = metadata["continue"]

    async def _stream(
        self, kind: Kind, namespace: str | None, labels: str, version: str, seconds: int
    ) -> AsyncIterator[Object]:
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "labelSelector": labels,
            "resourceVersion": version,
            "timeoutSeconds": str(seconds),
        }
        limits = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=SILENCE_SECONDS)
        path = kind.path(namespace=namespace)
        response = await self._request("GET", path, query=query, limits=limits)
        try:
            if response.status != 200:  # noqa: PLR2004 - HTTP OK
                raise error_of(response.status, decode(await response.read()), request=f"watch {path}")
            async for line in lines(response):
                yield json.loads(line)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise unreachable(f"watch {path}", error) from error
        finally:
            response.close()

    async def _patch(self, kind: Kind, path: str, patch: _Patch, *, verb: str) -> Object:
        query = {"fieldManager": FIELD_MANAGER}
        return await self._json(
            "PATCH", kind, path, query=query, body=patch, content_type=_JSON_PATCH, verb=verb
        )

    async def _claim_created_fields(self, kind: Kind, path: str, *, uid: str) -> None:
        """Turn the ownership that creation gave us into that of apply, once in an object's life.

        Fields set by POST belong to our manager's operation Update. An apply never removes
        those, so a field that is dropped later would stay for good.
        See https://kubernetes.io/docs/reference/using-api/server-side-apply/#upgrading-from-client-side-apply-to-server-side-apply
        """
        metadata = (await self._json("GET", kind, path))["metadata"]
        entries = metadata.get("managedFields") or []
        ours = [e for e in entries if e.get("manager") == FIELD_MANAGER and not e.get("subresource")]
        if metadata["uid"] != uid:
            raise replaced(kind, path)
        if [e.get("operation") for e in ours] != ["Update"]:
            return
        claimed = [{**e, "operation": "Apply"} if e in ours else e for e in entries]
        patch: _Patch = [
            {"op": "replace", "path": "/metadata/managedFields", "value": claimed},
            {"op": "replace", "path": "/metadata/resourceVersion", "value": metadata["resourceVersion"]},
        ]
        await self._patch(kind, path, patch, verb="claim")

    async def _json(
        self,
        method: str,
        kind: Kind,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        verb: str = "",
    ) -> Object:
        """Send a request and return the object it answers; `verb` names a write for the hook."""
        what = f"{(verb or method).lower()} {path}"
        limits = aiohttp.ClientTimeout(total=REQUEST_SECONDS, sock_connect=10)
        response = await self._request(
            method, path, query=query, body=body, content_type=content_type, limits=limits
        )
        try:
            answer = decode(await response.read())
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise unreachable(what, error) from error
        finally:
            response.release()
        if not 200 <= response.status < 300:  # noqa: PLR2004 - HTTP success
            if kind == SECRET:
                answer["message"] = answer.get("reason")  # may quote what it refuses
            raise error_of(response.status, answer, request=what)
        if verb and kind != LEASE:  # keeping the Lease is no effect of a reconcile
            faults.point(f"api.{verb}.{kind.kind}", _name(answer))
        if verb and self._on_write:
            self._on_write(verb, kind)
        return typed(kind, answer) if method != "DELETE" else answer

    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        limits: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        try:
            method, url, headers, body, _ = await self._api.param_serialize(
                method,
                path,
                query_params=[(k, v) for k, v in (query or {}).items() if v],
                header_params={"Accept": "application/json", "Content-Type": content_type},
                body=body,
                auth_settings=["BearerToken"],
            )
            response = await self._api.call_api(method, url, headers, body, _request_timeout=limits)
        except (aiohttp.ClientError, OSError, TimeoutError, ConfigException) as error:
            raise unreachable(f"{method} {path}", error) from error
        answer: aiohttp.ClientResponse = response.response
        return answer


def _escaped(key: str) -> str:
    """Return a key as it stands in a JSON pointer."""
    return key.replace("~", "~0").replace("/", "~1")


def _in_cluster() -> bool:
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST")) and _TOKEN.is_file()


def _namespace(body: Object) -> str:
    return str(body.get("metadata", {}).get("namespace", ""))


def _name(answer: Object) -> str:
    """Return the name of the object that an answer shows; the answer to a delete shows none."""
    return str((answer.get("metadata") or {}).get("name", ""))
