"""A real kube-apiserver with its etcd on free loopback ports: no kubelet, no controllers.

Everything lies in one directory; processes end with the context, and with the test process
if that is killed. Objects live as long as the server, so tests take a namespace each.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import secrets
import shutil
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

START_SECONDS = 60.0
LAZY = {"GOGC": "400"}
"""Environment of Go programs: memory is plenty, and they collect garbage for a good part of their time."""
STOP_SECONDS = 10.0

_AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "None", "verbs": ["get", "list", "watch"]}, {"level": "Metadata"}],
}
"""Who wrote what. Reads are most of all requests, and nobody asks for them."""


@dataclasses.dataclass(frozen=True)
class Binaries:
    """Absolute paths of the programs."""

    etcd: str
    kube_apiserver: str
    kubectl: str

    @classmethod
    def build(cls, repository: Path) -> Binaries:
        """Return the local cluster's own binaries, built if they are not there yet."""
        command = [sys.executable, "hack/localcluster", "binaries", "etcd", "kube-apiserver", "kubectl"]
        done = subprocess.run(command, cwd=repository, check=True, stdout=subprocess.PIPE, text=True)
        return cls(*done.stdout.split()[-3:])


@dataclasses.dataclass(frozen=True)
class ApiServer:
    """A running API server and how to talk to it; the token's user is a cluster administrator."""

    url: str
    token: str
    certificate: Path
    kubeconfig: Path
    audit_log: Path
    kubectl_path: str

    def kubectl(self, *arguments: str, manifest: object = None) -> subprocess.CompletedProcess[str]:
        """Run kubectl; a manifest goes to its standard input (`-f -`)."""
        return subprocess.run(
            [self.kubectl_path, f"--kubeconfig={self.kubeconfig}", *arguments],
            input=None if manifest is None else json.dumps(manifest),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def get(self, path: str) -> Any:
        """Return the JSON that a GET of a path of the API answers."""
        request = urllib.request.Request(  # noqa: S310 - our own https URL
            f"{self.url}{path}", headers={"Authorization": f"Bearer {self.token}"}
        )
        context = ssl.create_default_context(cafile=str(self.certificate))
        with urllib.request.urlopen(request, context=context, timeout=30) as response:  # noqa: S310
            return json.load(response)


@contextlib.contextmanager
def running_api_server(directory: Path, binaries: Binaries) -> Iterator[ApiServer]:
    """Start etcd and kube-apiserver in an empty directory, wait until ready, stop them at the end."""
    client, peer, secure = _free_ports(3)
    server = ApiServer(
        url=f"https://127.0.0.1:{secure}",
        token=secrets.token_hex(16),
        certificate=directory / "pki" / "apiserver.crt",
        kubeconfig=directory / "kubeconfig",
        audit_log=directory / "audit.log",
        kubectl_path=binaries.kubectl,
    )
    _write_files(directory, server)
    with contextlib.ExitStack() as stack:
        etcd = stack.enter_context(_process(_etcd(binaries, directory, client, peer), directory / "etcd.log"))
        arguments = _kube_apiserver(binaries, directory, secure, client)
        api = stack.enter_context(_process(arguments, directory / "kube-apiserver.log"))
        _wait_ready(server, (etcd, api), directory)
        yield server


def _etcd(binaries: Binaries, directory: Path, client: int, peer: int) -> list[str]:
    return [
        binaries.etcd,
        f"--data-dir={directory / 'etcd'}",
        f"--listen-client-urls=http://127.0.0.1:{client}",
        f"--advertise-client-urls=http://127.0.0.1:{client}",
        f"--listen-peer-urls=http://127.0.0.1:{peer}",
        f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
        f"--initial-cluster=default=http://127.0.0.1:{peer}",
        "--unsafe-no-fsync",  # nobody needs this data after a power cut
    ]


def _kube_apiserver(binaries: Binaries, directory: Path, secure: int, client: int) -> list[str]:
    key = directory / "service-account.key"
    return [
        binaries.kube_apiserver,
        f"--etcd-servers=http://127.0.0.1:{client}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        f"--secure-port={secure}",
        f"--cert-dir={directory / 'pki'}",
        f"--token-auth-file={directory / 'tokens.csv'}",
        "--authorization-mode=RBAC",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={key}",
        f"--service-account-signing-key-file={key}",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--disable-admission-plugins=ServiceAccount",  # no controller makes the default accounts
        f"--audit-policy-file={directory / 'audit-policy.json'}",
        f"--audit-log-path={directory / 'audit.log'}",
        "--endpoint-reconciler-type=none",
    ]


def _write_files(directory: Path, server: ApiServer) -> None:
    key = directory / "service-account.key"
    command = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(key)]
    subprocess.run(command, check=True, capture_output=True)
    (directory / "tokens.csv").write_text(f'{server.token},admin,admin,"system:masters"\n')
    (directory / "audit-policy.json").write_text(json.dumps(_AUDIT_POLICY))
    server.kubeconfig.write_text(json.dumps(_kubeconfig(server)))


def _kubeconfig(server: ApiServer) -> dict[str, Any]:
    cluster = {"server": server.url, "certificate-authority": str(server.certificate)}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "admin", "user": {"token": server.token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
        "current-context": "test",
    }


@contextlib.contextmanager
def _process(arguments: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program until the context ends; it is told to stop, and killed if it does not."""
    with log.open("wb") as output, _started(arguments, output) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def _started(arguments: Sequence[str], output: IO[bytes]) -> subprocess.Popen[bytes]:
    dies_with_us = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
    return subprocess.Popen(
        [*dies_with_us, *arguments], stdout=output, stderr=subprocess.STDOUT, env=os.environ | LAZY
    )


def _wait_ready(server: ApiServer, processes: Sequence[subprocess.Popen[bytes]], directory: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if any(process.poll() is not None for process in processes):
            break
        if server.kubectl("get", "--raw", "/readyz").returncode == 0:
            return
        time.sleep(0.2)
    logs = (directory / "etcd.log", directory / "kube-apiserver.log")
    tails = "\n".join(f"{log.name}:\n{log.read_text(errors='replace')[-2000:]}" for log in logs)
    raise RuntimeError(f"the API server did not become ready in {START_SECONDS:.0f} s\n{tails}")


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
