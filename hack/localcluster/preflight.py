"""Can this host run a cluster; asked before anything is changed."""

import os
import socket
import sys
from contextlib import suppress
from dataclasses import replace

from localcluster import firewall, network
from localcluster.errors import ClusterError
from localcluster.layout import Layout
from localcluster.processes import marked

LOOPBACK_PORTS = (12379, 12380, 10257, 10259, 10248, 10348, 10249, 10256, 18181)


def check_user() -> None:
    """Refuse other systems than Linux, and users who may not change the host."""
    if sys.platform != "linux":
        raise ClusterError("The cluster runs on Linux only.", "Run it in a Linux virtual machine.")
    if os.geteuid() != 0:
        raise ClusterError(
            "The cluster needs root: it makes a bridge, mounts and cgroups.",
            "Run the same command with `sudo -E`.",
        )


def check_state_folder(layout: Layout) -> None:
    """Refuse a state folder that holds somebody else's files: `down` removes it whole."""
    state = layout.state
    if state.exists() and not layout.marker.exists() and any(state.iterdir()):
        raise ClusterError(
            f"{state} holds files that are not a cluster's.",
            "Name an empty or new folder in LOCALCLUSTER_STATE.",
        )


def check_owner(layout: Layout) -> None:
    """Refuse to take a host on which a cluster with another state folder runs."""
    for owner in set(marked().values()) - {layout.state}:
        if replace(layout, state=owner).marker.exists():
            raise ClusterError(
                f"A cluster with the state folder {owner} runs on this host.",
                f"Use it, or end it: `LOCALCLUSTER_STATE={owner} python3 hack/localcluster down`.",
            )


def check_host() -> None:
    """Refuse a host on which something else uses what the cluster needs; after all left-overs are gone."""
    network.check_free()
    if firewall.foreign_kubernetes():
        raise ClusterError(
            "Rules of another Kubernetes stand in this host's iptables.",
            "Stop that cluster first; a restart of the host clears what it left.",
        )
    for port in LOOPBACK_PORTS:
        _check_port(port)


def _check_port(port: int) -> None:
    with socket.socket() as probe, suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        return
    raise ClusterError(f"Port {port} of 127.0.0.1 is in use.", f"See by what: `ss -ltnp 'sport = :{port}'`.")
