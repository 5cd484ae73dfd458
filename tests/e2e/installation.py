"""The chart on the cluster, and the operator that runs from it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from typing import TYPE_CHECKING, Any

from tests.e2e.audit import AuditLog
from tests.e2e.cluster import kubectl
from tests.integration.eventually import eventually

from demo import installation as demo

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.cluster import Cluster

Object = dict[str, Any]
POD_SECONDS = 90


@dataclasses.dataclass(frozen=True)
class Installation:
    """One release of the chart."""

    cluster: Cluster
    release: str
    namespace: str
    deployment: str
    user: str
    """The operator's name in the audit log."""
    since: AuditLog | None
    """What happened since just before it was installed or upgraded."""

    @classmethod
    def of(cls, cluster: Cluster, *, release: str, namespace: str, since: AuditLog | None) -> Installation:
        """Find out what a release made."""
        (found,) = cluster.kube(namespace).list("Deployment", f"app.kubernetes.io/instance={release}")
        account = found["spec"]["template"]["spec"]["serviceAccountName"]
        return cls(
            cluster=cluster,
            release=release,
            namespace=namespace,
            deployment=found["metadata"]["name"],
            user=f"system:serviceaccount:{namespace}:{account}",
            since=since,
        )

    def pods(self) -> list[Object]:
        """Return the operator's pods that are not on their way out."""
        found = self.cluster.kube(self.namespace).list("Pod", f"app.kubernetes.io/instance={self.release}")
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def wait_ready(self) -> Object:
        """Wait until one operator holds the lease and works, and return its pod."""

        def ready() -> Object:
            (pod,) = self.pods()
            conditions = {each["type"]: each["status"] for each in pod["status"].get("conditions") or []}
            assert conditions.get("Ready") == "True", pod["status"]
            return pod

        return eventually(ready, within=POD_SECONDS, because=self.log)

    def restart(self) -> None:
        """Delete the operator's pod and wait for the next."""
        (before,) = self.pods()
        self.cluster.kube(self.namespace).delete("Pod", before["metadata"]["name"])
        self.wait_ready()

    def scale(self, replicas: int) -> None:
        """Stop the operator (0) or start it again (1)."""
        kube = self.cluster.kube(self.namespace)
        kube.patch("Deployment", self.deployment, {"spec": {"replicas": replicas}})
        if replicas:
            self.wait_ready()
            return

        def stopped() -> None:
            assert kube.list("Pod", f"app.kubernetes.io/instance={self.release}") == []

        eventually(stopped, within=POD_SECONDS)

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Have no operator run while the context is open."""
        self.scale(0)
        try:
            yield
        finally:
            self.scale(1)

    def log(self, *, lines: int = -1) -> str:
        """Return the operator's log."""
        target = f"deployment/{self.deployment}"
        options = ("--namespace", self.namespace, f"--tail={lines}")
        return kubectl("logs", *options, target, check=False).stdout

    def complaints(self) -> list[str]:
        """Return the lines of the log that are errors or hold a traceback."""
        found = []
        for line in self.log().splitlines():
            try:
                level = json.loads(line).get("level", "").upper()
            except ValueError:
                level = "ERROR"  # not written by our logging: a traceback or worse
            if level in ("ERROR", "CRITICAL"):
                found.append(line)
        return found


def install(cluster: Cluster) -> Installation:
    """Install or upgrade the release that `make demo` installs too."""
    since = AuditLog.from_now(cluster.audit_log) if cluster.audit_log else None
    demo.install_operator(cluster.images)
    found = Installation.of(cluster, release=demo.RELEASE, namespace=demo.OPERATOR_NAMESPACE, since=since)
    found.wait_ready()
    return found
