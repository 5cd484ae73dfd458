"""The real controllers beside the API server, and accounts for those who talk to it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from typing import TYPE_CHECKING, Any

from tests.integration.apiserver import LAZY
from tests.integration.kube import Kube
from tests.integration.processes import Program, binary, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.apiserver import ApiServer

CONTROLLERS = (
    "deployment-controller",
    "replicaset-controller",
    "job-controller",
    "garbage-collector-controller",
    "namespace-controller",
    "persistentvolume-binder-controller",
    "persistentvolumeclaim-protection-controller",
    "ttl-after-finished-controller",
)


@contextlib.contextmanager
def controller_manager(server: ApiServer, directory: Path) -> Iterator[Program]:
    """Run kube-controller-manager without what needs nodes; the CRDs must be there already.

    Its garbage collector looks for new kinds only twice a minute.
    """
    command = [
        binary("kube-controller-manager"),
        f"--kubeconfig={server.kubeconfig}",
        f"--controllers={','.join(CONTROLLERS)}",
        "--leader-elect=false",
        "--secure-port=0",
        "--kube-api-qps=200",
        "--kube-api-burst=400",
    ]
    with running(command, log=directory / "kube-controller-manager.log", environment=LAZY) as program:
        yield program


@dataclasses.dataclass(frozen=True)
class Account:
    """A service account of its own, so that the audit log tells who wrote what."""

    user: str
    kubeconfig: Path


def make_account(
    server: ApiServer, name: str, *, namespace: str, directory: Path, role: str = "cluster-admin"
) -> Account:
    """Create a service account with the rights of a ClusterRole, and a kubeconfig for it."""
    kube = Kube.admin(server, namespace=namespace)
    kube.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}})
    subject = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}
    kube.create(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": reference,
            "subjects": [subject],
        }
    )
    request = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": 86400},
    }
    token = kube.create_below("ServiceAccount", name, "token", request)["status"]["token"]
    kubeconfig = directory / f"{name}.kubeconfig"
    content: dict[str, Any] = json.loads(server.kubeconfig.read_text())
    content["users"][0]["user"] = {"token": token}
    kubeconfig.write_text(json.dumps(content))
    return Account(user=f"system:serviceaccount:{namespace}:{name}", kubeconfig=kubeconfig)


def writes_of(server: ApiServer, user: str) -> list[tuple[str, str]]:
    """Return the writes of a user in their order as (verb, resource/name), Leases and reviews left out."""
    lines = server.audit_log.read_text().splitlines(keepends=True)
    events = [json.loads(line) for line in lines if line.endswith("\n") and f'"{user}"' in line]
    return [_written(event) for event in events if _is_write(event, user)]


def _is_write(event: dict[str, Any], user: str) -> bool:
    verbs = ("create", "update", "patch", "delete", "deletecollection")
    resource = event.get("objectRef", {}).get("resource", "")
    ours = event["user"]["username"] == user and event["verb"] in verbs
    return bool(ours and resource != "leases" and not resource.endswith("reviews"))


def _written(event: dict[str, Any]) -> tuple[str, str]:
    ref = event["objectRef"]
    path = "/".join(
        filter(None, (ref.get("namespace"), ref["resource"], ref.get("name"), ref.get("subresource")))
    )
    return event["verb"], path
