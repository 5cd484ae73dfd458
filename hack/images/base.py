"""The base image: a small Debian made by debootstrap, for machines that reach no image registry."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import host
from progress import run, say

if TYPE_CHECKING:
    from collections.abc import Iterator

SUITE = "bookworm"
_RECIPE = 1
"""Raised by hand when this module makes another base image than before."""

_NAME = "localhost/triton-operator/base"
_LEFT_OUT = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "var/cache/apt",
    "var/log",
)
_DPKG = "".join(f"path-exclude=/{path}/*\n" for path in _LEFT_OUT[:4]) + (
    "path-include=/usr/share/doc/*/copyright\n"
)


def reference() -> str:
    """Return the base image's name; the same on every machine that makes it in the same way."""
    return f"{_NAME}:{SUITE}-{_RECIPE}"


@contextlib.contextmanager
def made(folder: Path, *, log: Path) -> Iterator[Path]:
    """Make the root file system in `folder`, which is gone again afterwards."""
    _clear(folder)
    try:
        _make(folder, log=log)
        yield folder
    finally:
        _clear(folder)


def _clear(folder: Path) -> None:
    """Remove the folder; a killed debootstrap leaves its mounts in it."""
    mounts = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    for mount in reversed([line.split()[1] for line in mounts]):
        if mount.startswith(f"{folder}/"):
            subprocess.run(["umount", mount], check=True)
    if folder.exists():
        shutil.rmtree(folder)


def _make(folder: Path, *, log: Path) -> None:
    folder.mkdir(parents=True)
    mirror, security = host.debian_mirrors(SUITE)
    say(f"base image: debootstrap {SUITE}, once")
    run(
        ["debootstrap", "--variant=minbase", SUITE, str(folder), mirror],
        log=log,
        title="debootstrap",
        show=lambda line: line if line.startswith("I: Base system") else None,
    )
    suites = [(mirror, SUITE), (mirror, f"{SUITE}-updates"), (security, f"{SUITE}-security")]
    sources = "".join(f"deb {uri} {suite} main\n" for uri, suite in suites)
    (folder / "etc/apt/sources.list").write_text(sources, encoding="utf-8")
    proxy = host.apt_proxy()
    if proxy:
        (folder / "etc/apt/apt.conf.d/90proxy").write_text(proxy, encoding="utf-8")
    _slim(folder)


def _slim(folder: Path) -> None:
    """Take out what no container reads, and keep later packages from bringing it."""
    (folder / "etc/dpkg/dpkg.cfg.d/90slim").write_text(_DPKG, encoding="utf-8")
    for path in _LEFT_OUT:
        for entry in sorted((folder / path).rglob("*"), reverse=True):
            if entry.name != "copyright" and not entry.is_dir():
                entry.unlink()
    for package_list in (folder / "var/lib/apt/lists").glob("*_*"):
        package_list.unlink()
    (folder / "etc/resolv.conf").unlink(missing_ok=True)
    (folder / "etc/hostname").unlink(missing_ok=True)
