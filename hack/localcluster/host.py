"""What a cluster changes on its host outside its own folder, remembered and put back."""

import json
import shutil
from contextlib import suppress
from pathlib import Path

from localcluster.layout import Layout

CHANGED_SETTINGS = (
    "net/ipv4/ip_forward",  # ours: pods reach other networks through the host
    "net/ipv4/conf/all/route_localnet",  # kube-proxy
    "net/bridge/bridge-nf-call-iptables",  # kube-proxy
    "net/bridge/bridge-nf-call-ip6tables",
    "net/netfilter/nf_conntrack_max",
    "vm/overcommit_memory",  # from here on the kubelet
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)
FIXED_FOLDERS = (
    "/var/lib/kubelet",  # the kubelet's device plugin socket
    "/var/log/containers",  # the kubelet's links to logs
    "/var/log/pods",
    "/var/lib/cni",  # results that the CNI library caches
    "/run/containerd",  # sockets of shims
    "/run/netns",
    "/usr/libexec/kubernetes",
)
"""Folders whose path is compiled into a part."""


def remember(layout: Layout) -> None:
    """Write down how the host looks, once: a second start must not take our changes for the original."""
    if layout.host_record.exists():
        return
    settings = {
        name: _setting(name).read_text().strip() for name in CHANGED_SETTINGS if _setting(name).exists()
    }
    absent = [folder for folder in FIXED_FOLDERS if not Path(folder).exists()]
    partial = layout.host_record.with_suffix(".partial")
    partial.write_text(json.dumps({"settings": settings, "absent_folders": absent}, indent=1))
    partial.replace(layout.host_record)


def enable_forwarding() -> None:
    """Let the host forward packets of pods, and let iptables see what crosses the bridge."""
    _setting("net/ipv4/ip_forward").write_text("1")
    with suppress(FileNotFoundError):  # without it the kernel has no such module, or it is built otherwise
        _setting("net/bridge/bridge-nf-call-iptables").write_text("1")


def restore(layout: Layout) -> None:
    """Put settings back and remove the folders that were not there before."""
    try:
        record = json.loads(layout.host_record.read_text())
    except (OSError, ValueError):
        return
    for name, value in record["settings"].items():
        with suppress(OSError):
            if _setting(name).read_text().strip() != value:
                _setting(name).write_text(value)
    for folder in record["absent_folders"]:
        if folder in FIXED_FOLDERS:
            shutil.rmtree(folder, ignore_errors=True)


def _setting(name: str) -> Path:
    return Path("/proc/sys") / name
