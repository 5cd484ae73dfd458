"""What the Kubernetes client speaks of: kinds, objects, watch events and errors.

KubeError
├── NotFound         404
├── AlreadyExists    409 on creation
├── Conflict         409 otherwise, and every mismatch of a UID
├── Forbidden        403
│   └── Terminating  403, as the namespace is being deleted
├── Invalid          400, 422
├── Gone             410: a list or a watch has to start over
└── Unavailable      5xx, 401, 429, the network, a timeout
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal
from urllib.parse import quote

from triton_operator.clients.errors import ClientError

Object = dict[str, Any]
"""A Kubernetes object in its JSON form."""

GROUP_VERSION = "triton-operator.io/v1alpha1"


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind and where the API server serves it; paths come from here, not from discovery."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True

    def path(self, *, namespace: str | None = None, name: str = "", subresource: str = "") -> str:
        """Return the request path of one object, or of all of them in a namespace or the cluster."""
        parts = ["api" if "/" not in self.api_version else "apis", self.api_version]
        if self.namespaced and namespace:
            parts += ["namespaces", quote(namespace, safe="")]
        parts += [self.plural, quote(name, safe=""), subresource]
        return "/" + "/".join(part for part in parts if part)


POD = Kind("v1", "Pod", "pods")
SERVICE = Kind("v1", "Service", "services")
SECRET = Kind("v1", "Secret", "secrets")
CLAIM = Kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims")
NAMESPACE = Kind("v1", "Namespace", "namespaces", namespaced=False)
NODE = Kind("v1", "Node", "nodes", namespaced=False)
EVENT = Kind("events.k8s.io/v1", "Event", "events")
DEPLOYMENT = Kind("apps/v1", "Deployment", "deployments")
JOB = Kind("batch/v1", "Job", "jobs")
POD_DISRUPTION_BUDGET = Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
LEASE = Kind("coordination.k8s.io/v1", "Lease", "leases")
ACCESS_REVIEW = Kind(
    "authorization.k8s.io/v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", namespaced=False
)
INFERENCE_MODEL = Kind(GROUP_VERSION, "InferenceModel", "inferencemodels")
TRITON_SERVER = Kind(GROUP_VERSION, "TritonServer", "tritonservers")
MODEL_REPOSITORY = Kind(GROUP_VERSION, "ModelRepository", "modelrepositories")
ENGINE = Kind(GROUP_VERSION, "Engine", "engines")


@dataclasses.dataclass(frozen=True)
class WatchEvent:
    """One step of a watch.

    `SYNCED` comes once, after every object that existed at the start; its object is empty. The
    object of a `DELETED` that was noticed only by listing again carries its identity alone:
    name, namespace, uid, labels, owner references.
    """

    type: Literal["ADDED", "MODIFIED", "DELETED", "SYNCED"]
    object: Object


class KubeError(ClientError):
    """A request to the API server failed; `message` is the server's, the text says which request too."""

    def __init__(self, *, status: int, reason: str, message: str, request: str = "") -> None:
        """Keep the HTTP status (0: none came), the machine's reason and the server's message."""
        super().__init__(f"{request}: {message}" if request else message)
        self.status = status
        self.reason = reason
        self.message = message


class NotFound(KubeError):
    """The object, or its kind, is not there."""


class AlreadyExists(KubeError):
    """An object of that name exists."""


class Conflict(KubeError):
    """The object is not the one that was meant, or has changed since it was read."""


class Forbidden(KubeError):
    """The operator has no right to do this, or admission refuses it."""


class Terminating(Forbidden):
    """The namespace is being deleted, and takes nothing new."""


class Invalid(KubeError):
    """The API server refuses the content."""


class Gone(KubeError):
    """The resource version or the page asked for is no longer kept."""


class Unavailable(KubeError):
    """The API server was not reached, or could not answer now."""


_BY_STATUS: dict[int, type[KubeError]] = {
    400: Invalid,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: Invalid,
}


def error_of(status: int, answer: Object, *, request: str) -> KubeError:
    """Return the error for a Status object or any other answer that is not 2xx."""
    reason = str(answer.get("reason") or f"HTTP {status}")
    message = str(answer.get("message") or reason)
    cls = _BY_STATUS.get(status, Unavailable)
    if reason == "AlreadyExists":
        cls = AlreadyExists
    elif reason == "Expired":
        cls = Gone
    elif any(c.get("reason") == "NamespaceTerminating" for c in _causes(answer)):
        cls = Terminating
    return cls(status=status, reason=reason, message=message, request=request)


def _causes(answer: Object) -> list[Object]:
    details = answer.get("details")
    return list(details.get("causes") or ()) if isinstance(details, dict) else []
