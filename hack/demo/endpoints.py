"""Ways to reach Triton from this host: addresses of the cluster, or kubectl's port forwarding."""

import queue
import re
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from demo.cluster import Cluster, Snapshot
from demo.errors import DemoError
from demo.milestones import Target

HTTP, GRPC = 8000, 8001
_FORWARDED = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+) -> (\d+)")
_WAIT_SECONDS = 20.0


@dataclass(frozen=True)
class Endpoint:
    """A Service or a pod, and where its HTTP and gRPC ports are for this host."""

    name: str
    http: str
    grpc: str


@contextmanager
def endpoints(
    cluster: Cluster, snapshot: Snapshot, target: Target, *, forward: bool
) -> Iterator[Sequence[Endpoint]]:
    """Yield the server's Service and each of its pods."""
    service = f"triton-{target.server}"
    pods = {
        pod["metadata"]["name"]: pod["status"]["podIP"]
        for pod in snapshot.pods("triton", server=target.server)
    }
    with ExitStack() as stack:
        if forward:
            names = [f"service/{service}", *(f"pod/{name}" for name in pods)]
            yield [stack.enter_context(_forwarded(name, target.namespace)) for name in names]
        else:
            addresses = {f"service/{service}": cluster.service_address(target.namespace, service)}
            addresses |= {f"pod/{name}": address for name, address in pods.items()}
            yield [
                Endpoint(name, f"{address}:{HTTP}", f"{address}:{GRPC}")
                for name, address in addresses.items()
            ]


@contextmanager
def _forwarded(name: str, namespace: str) -> Iterator[Endpoint]:
    command = ["kubectl", "port-forward", "--namespace", namespace, name, f":{HTTP}", f":{GRPC}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=_read, args=(process, lines), daemon=True).start()
        try:
            ports = _ports(lines, name)
            yield Endpoint(name, f"127.0.0.1:{ports[HTTP]}", f"127.0.0.1:{ports[GRPC]}")
        finally:
            process.terminate()


def _read(process: "subprocess.Popen[str]", lines: "queue.Queue[str]") -> None:
    assert process.stdout is not None  # noqa: S101 - Popen was given a pipe
    for line in process.stdout:
        lines.put(line)


def _ports(lines: "queue.Queue[str]", name: str) -> dict[int, str]:
    ports: dict[int, str] = {}
    while len(ports) < len((HTTP, GRPC)):
        try:
            line = lines.get(timeout=_WAIT_SECONDS)
        except queue.Empty as error:
            raise DemoError(f"kubectl port-forward to {name} does not come up") from error
        found = _FORWARDED.match(line)
        if found:
            ports[int(found[2])] = found[1]
    return ports
