"""Rules of iptables: ours, and the removal of everything that a cluster leaves in them."""

import re
from collections import defaultdict
from contextlib import suppress

from localcluster.command import run
from localcluster.errors import ClusterError
from localcluster.layout import BRIDGE, POD_NETWORK, SERVICE_NETWORK

CLUSTER_CHAIN = re.compile(r"(KUBE|CNI|TRTOP)-")
FAMILIES = {"iptables": "ip", "ip6tables": "ip6"}
"""Commands, and what nft calls their family of tables."""
RULES = f"""\
*nat
:TRTOP-MASQUERADE - [0:0]
-A POSTROUTING -j TRTOP-MASQUERADE
-A TRTOP-MASQUERADE -d {SERVICE_NETWORK} -j RETURN
-A TRTOP-MASQUERADE -s {POD_NETWORK} ! -d {POD_NETWORK} ! -o {BRIDGE} -j MASQUERADE
COMMIT
*filter
:TRTOP-FORWARD - [0:0]
-I FORWARD -j TRTOP-FORWARD
-A TRTOP-FORWARD -i {BRIDGE} -j ACCEPT
-A TRTOP-FORWARD -o {BRIDGE} -j ACCEPT
COMMIT
"""


def install() -> None:
    """Let pods' packets through the host and give them its address outside."""
    run(["iptables-restore", "--noflush", "--wait"], stdin=RULES)


def remove() -> None:
    """Remove every chain of the cluster, and tables that hold nothing any more."""
    for family in FAMILIES:
        with suppress(ClusterError):  # a host without IPv6 has no ip6tables
            _clean(family)


def foreign_kubernetes() -> bool:
    """Tell whether chains of some Kubernetes stand in iptables."""
    return ":KUBE-SERVICES" in run(["iptables-save"])


def undo_script(saved: str) -> str:
    """Turn the output of iptables-save into input for iptables-restore that removes the cluster's chains."""
    lines: dict[str, list[str]] = defaultdict(list)
    table = ""
    chains: dict[str, list[str]] = defaultdict(list)
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line
        elif line.startswith(":") and CLUSTER_CHAIN.match(line[1:]):
            chains[table].append(line[1:].split()[0])
        elif line.startswith("-A") and _leads_into_cluster(line):
            lines[table].append(line.replace("-A", "-D", 1))
    for name, own in chains.items():
        # All are emptied before any is removed: a chain that another one names can't be removed.
        lines[name] += [f"-F {chain}" for chain in own] + [f"-X {chain}" for chain in own]
    return "".join("\n".join([name, *body, "COMMIT"]) + "\n" for name, body in lines.items() if body)


def emptied_tables(saved: str) -> list[str]:
    """Return the tables without a rule, a chain of a user or a policy other than ACCEPT."""
    found: list[str] = []
    for section in saved.split("*")[1:]:
        name, *lines = section.splitlines()
        if all(line.startswith(("#", "COMMIT")) or re.match(r":\S+ ACCEPT", line) for line in lines):
            found.append(name)
    return found


def _leads_into_cluster(rule: str) -> bool:
    """Tell whether a rule of a foreign chain jumps into one of the cluster's."""
    chain = rule.split()[1]
    target = re.search(r" -[jg] (\S+)", rule)
    return not CLUSTER_CHAIN.match(chain) and target is not None and bool(CLUSTER_CHAIN.match(target[1]))


def _clean(family: str) -> None:
    script = undo_script(run([f"{family}-save"]))
    if script:
        run([f"{family}-restore", "--noflush", "--wait"], stdin=script)
    for table in emptied_tables(run([f"{family}-save"])):
        with suppress(
            ClusterError
        ):  # iptables on the old kernel interface: its tables stay, and are no tables of nft
            run(["nft", "delete", "table", FAMILIES[family], table])
