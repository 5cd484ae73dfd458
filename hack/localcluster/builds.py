"""Binaries that are built from locked Go modules into the cache."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from localcluster.command import run
from localcluster.errors import ClusterError
from localcluster.layout import HELM_VERSION, KUBERNETES_VERSION, Layout
from localcluster.progress import step


@dataclass(frozen=True)
class Binary:
    """A program, the folder of its go.mod below `modules`, and its package.

    What lies below one `modules` folder is built anew when any of it changes.
    """

    name: str
    part: str
    package: str
    modules: str = "go"


BINARIES = (
    # In this order: what other work waits for comes first.
    Binary("kubectl", "kubernetes", "k8s.io/kubernetes/cmd/kubectl"),
    Binary("etcd", "etcd", "go.etcd.io/etcd/server/v3"),
    Binary("kube-apiserver", "kubernetes", "k8s.io/kubernetes/cmd/kube-apiserver"),
    Binary("kube-controller-manager", "kubernetes", "k8s.io/kubernetes/cmd/kube-controller-manager"),
    Binary("kube-scheduler", "kubernetes", "k8s.io/kubernetes/cmd/kube-scheduler"),
    Binary("kubelet", "kubernetes", "k8s.io/kubernetes/cmd/kubelet"),
    Binary("kube-proxy", "kubernetes", "k8s.io/kubernetes/cmd/kube-proxy"),
    Binary("coredns", "coredns", "."),
    Binary("pause", "pause", "."),
    Binary("helm", "helm", "helm.sh/helm/v3/cmd/helm"),
    # Servers that tests of sources start.
    Binary("versitygw", "versitygw", "github.com/versity/versitygw/cmd/versitygw", "go-tests"),
    Binary("registry", "registry", "github.com/distribution/distribution/v3/cmd/registry", "go-tests"),
)
NAMES = tuple(binary.name for binary in BINARIES)
CLUSTER_NAMES = tuple(b.name for b in BINARIES if b.modules == "go" and b.name != "helm")
"""What `up` needs; the others are built when they are asked for."""
_MAJOR, _MINOR = KUBERNETES_VERSION.removeprefix("v").split(".")[:2]
LINKER_FLAGS = " ".join(
    [
        "-s -w",
        f"-X k8s.io/component-base/version.gitVersion={KUBERNETES_VERSION}",
        f"-X k8s.io/component-base/version.gitMajor={_MAJOR}",
        f"-X k8s.io/component-base/version.gitMinor={_MINOR}",
        f"-X helm.sh/helm/v3/internal/version.version={HELM_VERSION}",
    ],
)


def binary_path(layout: Layout, name: str) -> Path:
    """Return where a binary lies once it is built."""
    modules = next((binary.modules for binary in BINARIES if binary.name == name), "go")
    return folder(layout, modules) / name


def folder(layout: Layout, modules: str = "go") -> Path:
    """Return the folder of all binaries of this set of modules."""
    return layout.cache / "bin" / modules_digest(layout.source, modules)


@cache
def modules_digest(source: Path, modules: str = "go") -> str:
    """Return a digest of everything that decides what is built."""
    digest = hashlib.sha256(LINKER_FLAGS.encode())
    for path in sorted((source / modules).rglob("*")):
        if path.suffix in {".mod", ".sum", ".go"}:
            digest.update(path.relative_to(source).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def build_missing(layout: Layout, names: Sequence[str]) -> None:
    """Build the named binaries that are not in the cache."""
    wanted = [
        binary
        for binary in BINARIES
        if binary.name in names and not binary_path(layout, binary.name).exists()
    ]
    if not wanted:
        return
    if shutil.which("go") is None:
        raise ClusterError(
            "Go is not installed.", "Install Go 1.26 or later (https://go.dev/dl) and have `go` in PATH."
        )
    for binary in wanted:
        target = folder(layout, binary.modules)
        target.mkdir(parents=True, exist_ok=True)
        with _locked(target), step(f"build {binary.name}"):
            _build(layout, binary)


def _build(layout: Layout, binary: Binary) -> None:
    target = binary_path(layout, binary.name)
    if target.exists():  # somebody else built it while this process waited
        return
    partial = target.with_name(f".{binary.name}.{os.getpid()}")
    run(
        [
            "go",
            "build",
            "-mod=readonly",
            "-trimpath",
            "-buildvcs=false",
            "-ldflags",
            LINKER_FLAGS,
            "-o",
            partial,
            binary.package,
        ],
        cwd=layout.source / binary.modules / binary.part,
        environment={"CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": ""},
        remedy="The build needs the Go module proxy and about 4 GiB of disk; read the lines above.",
    )
    partial.replace(target)


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Build one at a time, also across processes: two builds of Kubernetes at once need twice the memory."""
    with (target / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
