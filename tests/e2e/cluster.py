"""The cluster that the tests run on: its tools, its images, and an API to ask."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.integration.kube import PLURALS, Kube

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).resolve().parents[2]
TOOL_SECONDS = 150
PROXIED = re.compile(r"127\.0\.0\.1:\d+")
FORWARDED = re.compile(r"Forwarding from (127\.0\.0\.1:\d+) -> (\d+)")

PLURALS.update(
    ClusterRole=("rbac.authorization.k8s.io/v1", "clusterroles"),
    ReplicaSet=("apps/v1", "replicasets"),
    Role=("rbac.authorization.k8s.io/v1", "roles"),
    RoleBinding=("rbac.authorization.k8s.io/v1", "rolebindings"),
)


class ProxiedKube(Kube):
    """Requests through `kubectl proxy`, which knows every way to log in that a kubeconfig can name."""

    def __init__(self, url: str, *, namespace: str = "") -> None:
        super().__init__(url, token="", certificate=Path(os.devnull), namespace=namespace)
        del self._session.headers["Authorization"]

    def within(self, namespace: str) -> ProxiedKube:
        """Return the same client for another namespace."""
        return ProxiedKube(self.url, namespace=namespace)


@dataclasses.dataclass(frozen=True)
class Cluster:
    """A cluster with our images. kubectl and helm are in PATH, and KUBECONFIG names it."""

    images: Mapping[str, str]
    """Reference of each image, by name; those for TensorRT without a GPU only where the cluster is ours."""
    api: ProxiedKube
    audit_log: Path | None
    """Where the API server writes down every request; None on a cluster that isn't ours."""

    @property
    def is_local(self) -> bool:
        """Tell whether its nodes are on this host, so that pods are reached without forwarding."""
        return self.audit_log is not None

    def kube(self, namespace: str = "") -> ProxiedKube:
        """Return a client whose objects live in this namespace."""
        return self.api.within(namespace)


def kubectl(
    *arguments: str, stdin: str | bytes | None = None, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run kubectl; its failure is the test's, unless `check` is false."""
    return run("kubectl", *arguments, stdin=stdin, check=check)


def run(
    *command: str, stdin: str | bytes | None = None, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a program and return what it said."""
    given = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run(
        command,
        input=given,
        stdin=subprocess.DEVNULL if given is None else None,
        capture_output=True,
        timeout=TOOL_SECONDS,
        check=False,
    )
    out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    assert done.returncode == 0 or not check, f"{' '.join(command)}: {err or out}"
    return subprocess.CompletedProcess(command, done.returncode, out, err)


@contextlib.contextmanager
def forwarded(namespace: str, target: str, *ports: int) -> Iterator[dict[int, str]]:
    """Forward ports of a pod to this host while the context is open; yields `host:port` by port."""
    options = ("--namespace", namespace, "port-forward", target)
    with started("kubectl", *options, *(f":{port}" for port in ports)) as process:
        found: dict[int, str] = {}
        while len(found) < len(ports):
            if match := FORWARDED.search(read_line(process)):
                found[int(match[2])] = match[1]
        yield found


@contextlib.contextmanager
def started(*command: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program while the context is open."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()


def read_line(process: subprocess.Popen[str]) -> str:
    """Return the next line that a program prints; its end is a failure."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"{process.args!r} ended with {process.wait()}"
    return line


@contextlib.contextmanager
def connected() -> Iterator[Cluster]:
    """Yield the cluster that the environment names, and start what is missing.

    CLUSTER is `local` (default) or `current`; KUBECONFIG, and IMAGES (a file, as `hack/images
    build --json` prints it) are used when they are set, as `make e2e` does.
    """
    local = os.environ.get("CLUSTER", "local") == "local"
    if local:
        _use_local_cluster()
    images = _images(local=local)
    audit_log = Path(os.environ["KUBECONFIG"]).parent / "logs" / "audit.log" if local else None
    with started("kubectl", "proxy", "--port=0") as proxy:
        match = PROXIED.search(line := read_line(proxy))
        assert match, line
        yield Cluster(images=images, api=ProxiedKube(f"http://{match[0]}"), audit_log=audit_log)


def _use_local_cluster() -> None:
    if not os.environ.get("KUBECONFIG"):
        _tool("hack/localcluster", "up")
        os.environ["KUBECONFIG"] = _tool("hack/localcluster", "kubeconfig").strip()
    tools = _tool("hack/localcluster", "binaries", "kubectl", "helm").split()
    folders = {str(Path(tool).parent) for tool in tools}
    os.environ["PATH"] = os.pathsep.join([*folders, os.environ["PATH"]])


def _images(*, local: bool) -> dict[str, str]:
    listed = os.environ.get("IMAGES")
    assert listed or local, "CLUSTER=current needs IMAGES, a file that names the images: use `make e2e`"
    found = json.loads((ROOT / listed).read_text()) if listed else _build_and_load()
    return {name: image["reference"] for name, image in found.items()}


def _build_and_load() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_tool("hack/images", "build", "--json"))
    _tool("hack/localcluster", "load", *(image["archive"] for image in found.values()))
    return found


def _tool(*arguments: str) -> str:
    """Run one of our tools; what it reports goes through to the terminal."""
    return subprocess.run(
        (sys.executable, *arguments), cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    ).stdout
