"""Is the cluster healthy: each process, both nodes and DNS."""

import socket
import ssl
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from localcluster import dns, objects
from localcluster.api import Api
from localcluster.layout import Layout
from localcluster.nodes import NODES
from localcluster.parts import Part, all_parts
from localcluster.processes import recorded

PROBE_SECONDS = 3.0


@dataclass(frozen=True)
class Condition:
    """One row of the status table; a row without a process has no pid."""

    name: str
    pid: int | None
    healthy: bool


def conditions(layout: Layout) -> list[Condition]:
    """Probe everything at once and return it in the order of starting."""
    with ThreadPoolExecutor() as pool:
        parts = pool.map(lambda part: part_condition(layout, part), all_parts(layout).values())
        nodes = pool.map(
            lambda node: Condition(f"node {node.name}", None, _node_ready(layout, node.name)), NODES
        )
        names = pool.submit(dns.answers)
        return [*parts, *nodes, Condition("cluster DNS", None, names.result())]


def part_condition(layout: Layout, part: Part) -> Condition:
    """Probe one process."""
    process = recorded(layout, part.name)
    if process is None:
        return Condition(part.name, None, healthy=False)
    return Condition(part.name, process.pid, answers(layout, part.health))


def answers(layout: Layout, target: str) -> bool:
    """Tell whether a health endpoint is content; an empty one always is."""
    if not target:
        return True
    if target.startswith("/"):
        return _accepts(Path(target))
    request = urllib.request.Request(target, headers=_credentials(layout, target))  # noqa: S310 - from parts.py
    try:
        with _opener().open(request, timeout=PROBE_SECONDS):
            return True
    except OSError:
        return False


def table(rows: list[Condition]) -> str:
    """Render the status table."""
    lines = [f"{'PART':<26}{'PID':<10}HEALTHY"]
    lines += [f"{row.name:<26}{row.pid or '-':<10}{'yes' if row.healthy else 'NO'}" for row in rows]
    return "\n".join(lines)


def _node_ready(layout: Layout, name: str) -> bool:
    if not layout.kubeconfig.exists():
        return False
    api = Api.from_kubeconfig(layout.kubeconfig)
    return any(objects.node_is_ready(api, node) for node in NODES if node.name == name)


def _accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PROBE_SECONDS)
        return client.connect_ex(str(path)) == 0


def _credentials(layout: Layout, target: str) -> dict[str, str]:
    if not target.endswith("/readyz") or not layout.kubeconfig.exists():
        return {}
    return {"Authorization": f"Bearer {Api.from_kubeconfig(layout.kubeconfig).token}"}


def _opener() -> urllib.request.OpenerDirector:
    # Some parts serve health behind a certificate that they make up at start; all addresses are this host's.
    unverified = ssl.create_default_context()
    unverified.check_hostname = False
    unverified.verify_mode = ssl.CERT_NONE
    return urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=unverified)
    )
