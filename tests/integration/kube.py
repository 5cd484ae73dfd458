"""What tests ask of the API server: plain objects, short words, messages that tell what stands there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import requests

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.apiserver import ApiServer

GROUP = "triton-operator.io/v1alpha1"
PLURALS = {
    "InferenceModel": (GROUP, "inferencemodels"),
    "TritonServer": (GROUP, "tritonservers"),
    "ModelRepository": (GROUP, "modelrepositories"),
    "Engine": (GROUP, "engines"),
    "Deployment": ("apps/v1", "deployments"),
    "PodDisruptionBudget": ("policy/v1", "poddisruptionbudgets"),
    "Job": ("batch/v1", "jobs"),
    "CustomResourceDefinition": ("apiextensions.k8s.io/v1", "customresourcedefinitions"),
    "ConfigMap": ("v1", "configmaps"),
    "Event": ("v1", "events"),
    "Namespace": ("v1", "namespaces"),
    "Node": ("v1", "nodes"),
    "PersistentVolume": ("v1", "persistentvolumes"),
    "PersistentVolumeClaim": ("v1", "persistentvolumeclaims"),
    "Pod": ("v1", "pods"),
    "Secret": ("v1", "secrets"),
    "Service": ("v1", "services"),
    "ServiceAccount": ("v1", "serviceaccounts"),
    "Lease": ("coordination.k8s.io/v1", "leases"),
    "ClusterRole": ("rbac.authorization.k8s.io/v1", "clusterroles"),
    "ClusterRoleBinding": ("rbac.authorization.k8s.io/v1", "clusterrolebindings"),
}
CLUSTER_SCOPED = frozenset(
    {
        "ClusterRole",
        "ClusterRoleBinding",
        "CustomResourceDefinition",
        "Namespace",
        "Node",
        "PersistentVolume",
    }
)

Object = dict[str, Any]
list_of = list  # inside Kube, `list` is its method


class ApiError(Exception):
    """The API server refused."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


def path_of(kind: str, *, namespace: str = "", name: str = "", subresource: str = "") -> str:
    """Return the URL path of a collection or an object."""
    version, plural = PLURALS[kind]
    root = f"/api/{version}" if version == "v1" else f"/apis/{version}"
    scope = f"/namespaces/{namespace}" if namespace and kind not in CLUSTER_SCOPED else ""
    parts = [root + scope, plural, *filter(None, (name, subresource))]
    return "/".join(parts)


class Kube:
    """Requests with one token; `namespace` is where objects live that name none."""

    def __init__(self, url: str, *, token: str, certificate: Path, namespace: str = "") -> None:
        self.url = url
        self.token = token
        self.certificate = certificate
        self.namespace = namespace
        self._session = requests.Session()
        self._session.trust_env = False  # neither proxies nor other authorities of this machine
        self._session.headers["Authorization"] = f"Bearer {token}"
        self._session.verify = str(certificate)

    @classmethod
    def admin(cls, server: ApiServer, *, namespace: str = "") -> Kube:
        """Return a client that may do everything."""
        return cls(server.url, token=server.token, certificate=server.certificate, namespace=namespace)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def within(self, namespace: str) -> Kube:
        """Return the same client for another namespace."""
        return Kube(self.url, token=self.token, certificate=self.certificate, namespace=namespace)

    def get(self, kind: str, name: str) -> Object:
        """Return an object; `ApiError` with status 404 when it is not there."""
        return self._send("GET", path_of(kind, namespace=self.namespace, name=name))

    def find(self, kind: str, name: str) -> Object | None:
        """Return an object, or None."""
        try:
            return self.get(kind, name)
        except ApiError as error:
            if error.status == requests.codes.not_found:
                return None
            raise

    def list(self, kind: str, selector: str = "") -> list[Object]:
        """Return the objects that a label selector admits."""
        path = path_of(kind, namespace=self.namespace)
        return list(self._send("GET", f"{path}?labelSelector={requests.utils.quote(selector)}")["items"])

    def create(self, body: Object) -> Object:
        """Create an object."""
        return self._send("POST", path_of(body["kind"], namespace=self._namespace(body)), body)

    def create_below(self, kind: str, name: str, subresource: str, body: Object) -> Object:
        """Create a subresource of an object, such as a pod's binding."""
        path = path_of(kind, namespace=self.namespace, name=name, subresource=subresource)
        return self._send("POST", path, body)

    def apply(self, *bodies: Object) -> None:
        """Apply objects as `kubectl apply --server-side` does."""
        for body in bodies:
            name = body["metadata"]["name"]
            path = path_of(body["kind"], namespace=self._namespace(body), name=name)
            query = "?fieldManager=tests&force=true"
            self._send("PATCH", path + query, body, content="application/apply-patch+yaml")

    def patch(self, kind: str, name: str, body: Object, *, subresource: str = "") -> Object:
        """Change an object by a merge patch."""
        path = path_of(kind, namespace=self.namespace, name=name, subresource=subresource)
        return self._send("PATCH", path, body, content="application/merge-patch+json")

    def json_patch(self, kind: str, name: str, operations: list_of[Object]) -> Object:
        """Change an object by a JSON patch."""
        path = path_of(kind, namespace=self.namespace, name=name)
        return self._send("PATCH", path, operations, content="application/json-patch+json")

    def delete(self, kind: str, name: str, *, grace_seconds: int | None = None) -> None:
        """Delete an object, with what it owns in the background; one that is gone is fine."""
        options: Object = {"propagationPolicy": "Background"}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        try:
            self._send("DELETE", path_of(kind, namespace=self.namespace, name=name), options)
        except ApiError as error:
            if error.status != requests.codes.not_found:
                raise

    def condition(self, kind: str, name: str, type_: str) -> tuple[str, str, str]:
        """Return status, reason and message of a condition; empty strings while there is none."""
        found = self.find(kind, name) or {}
        for condition in found.get("status", {}).get("conditions") or []:
            if condition["type"] == type_:
                return condition["status"], condition.get("reason", ""), condition.get("message", "")
        return "", "", ""

    def _namespace(self, body: Object) -> str:
        return str(body["metadata"].get("namespace") or self.namespace)

    def _send(
        self,
        method: str,
        path: str,
        body: Object | list_of[Object] | None = None,
        *,
        content: str = "application/json",
    ) -> Object:
        payload = None if body is None else json.dumps(body)
        answer = self._session.request(
            method, self.url + path, data=payload, headers={"Content-Type": content}, timeout=30
        )
        decoded = answer.json()
        if not answer.ok:
            raise ApiError(answer.status_code, str(decoded.get("message", decoded)))
        return dict(decoded)
