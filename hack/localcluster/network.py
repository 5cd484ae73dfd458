"""The bridge of both nodes and all pods, and the route of Services."""

import json
from contextlib import suppress
from ipaddress import ip_network
from pathlib import Path

from localcluster.command import run
from localcluster.errors import ClusterError
from localcluster.layout import BRIDGE, POD_NETWORK, SERVICE_NETWORK
from localcluster.nodes import NODES

BRIDGE_FOLDER = Path("/sys/class/net") / BRIDGE


def create() -> None:
    """Make the bridge with an address for each node."""
    run(["ip", "link", "add", BRIDGE, "type", "bridge"])
    for node in NODES:
        run(["ip", "address", "add", f"{node.address}/16", "dev", BRIDGE])
    run(["ip", "link", "set", BRIDGE, "up"])
    # Without it a Service's address without a rule yet leaves by the default route, and no answer comes.
    run(["ip", "route", "add", SERVICE_NETWORK, "dev", BRIDGE])


def exists() -> bool:
    """Tell whether the bridge is there."""
    return BRIDGE_FOLDER.is_dir()


def remove() -> None:
    """Remove the bridge and every interface that hangs on it."""
    if not exists():
        return
    for port in sorted((BRIDGE_FOLDER / "brif").iterdir()):
        with suppress(ClusterError):  # it goes by itself when the kernel is done with the pod's namespace
            run(["ip", "link", "delete", port.name])
    run(["ip", "link", "delete", BRIDGE])


def check_free() -> None:
    """Refuse a host on which the cluster's networks lead elsewhere."""
    wanted = [ip_network(POD_NETWORK), ip_network(SERVICE_NETWORK)]
    for route in json.loads(run(["ip", "-j", "-4", "route", "show"]) or "[]"):
        if route["dst"] == "default" or route.get("dev") == BRIDGE:
            continue
        taken = ip_network(route["dst"], strict=False)
        if any(network.overlaps(taken) for network in wanted):
            needed = f"{POD_NETWORK} and {SERVICE_NETWORK}"
            raise ClusterError(
                f"This host already routes {taken} to {route.get('dev')}; the cluster needs {needed}.",
                "Leave that network (a VPN, another cluster), then run `up` again.",
            )
