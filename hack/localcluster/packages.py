"""Programs that come from Debian packages."""

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from localcluster.command import SEARCH_PATH, run
from localcluster.errors import ClusterError
from localcluster.progress import step

CNI_FOLDER = Path("/usr/lib/cni")
PROGRAMS = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "nft": "nftables",  # iptables can't remove the empty tables that it made
    "conntrack": "conntrack",
    "ip": "iproute2",
    "mount": "mount",
    "openssl": "openssl",
    "buildah": "buildah",  # not for the cluster itself: the project's images are made with these two
    "debootstrap": "debootstrap",
    str(CNI_FOLDER / "bridge"): "containernetworking-plugins",
}
POLICY = Path("/usr/sbin/policy-rc.d")
"""Debian's own switch: a package that is installed starts no service when this ends with 101."""


def missing() -> list[str]:
    """Return the packages whose program is not there."""
    return sorted(
        {package for program, package in PROGRAMS.items() if shutil.which(program, path=SEARCH_PATH) is None}
    )


def install_missing() -> None:
    """Install the packages that are missing."""
    packages = missing()
    if not packages:
        return
    if shutil.which("apt-get") is None:
        raise ClusterError(
            f"Programs of these packages are missing, and this host has no apt-get: {', '.join(packages)}.",
            "Install them by hand, then run `up` again.",
        )
    with step(f"packages {' '.join(packages)}"[:44]), _no_services():
        remedy = "apt-get failed: check the package sources of this host."
        quiet = {"DEBIAN_FRONTEND": "noninteractive"}
        run(["apt-get", "update"], environment=quiet, remedy=remedy)
        run(
            ["apt-get", "install", "--yes", "--no-install-recommends", *packages],
            environment=quiet,
            remedy=remedy,
        )


@contextmanager
def _no_services() -> Iterator[None]:
    """Keep the package of containerd from starting a containerd."""
    if POLICY.exists():
        yield
        return
    # Written beside and renamed, so that a half-written script is never run.
    partial = POLICY.with_name(f"{POLICY.name}.{socket.gethostname()}.{os.getpid()}")
    partial.write_text("#!/bin/sh\nexit 101\n")
    partial.chmod(0o755)
    partial.replace(POLICY)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)
