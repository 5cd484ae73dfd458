"""Where everything lies: state, cache and the addresses of the cluster."""

import os
from dataclasses import dataclass
from pathlib import Path

KUBERNETES_VERSION = "v1.35.4"
HELM_VERSION = "v3.21.4"

BRIDGE = "trtop0"
"""Interface names end at 15 characters; the name is also how a left-over is recognised."""
BRIDGE_ADDRESS = "10.244.0.1"
POD_NETWORK = "10.244.0.0/16"
SERVICE_NETWORK = "10.96.0.0/16"
DNS_ADDRESS = "10.96.0.10"
DNS_PORT = 10053
CLUSTER_DOMAIN = "cluster.local"
API_SERVER = f"https://{BRIDGE_ADDRESS}:6443"
ETCD_CLIENT = "http://127.0.0.1:12379"
ETCD_PEER = "http://127.0.0.1:12380"
STORAGE_CLASS = "shared"
PAUSE_IMAGE = "localhost/triton-operator-pause:1"


@dataclass(frozen=True)
class Layout:
    """Paths of one cluster.

    Attributes:
        state: Everything that `down` removes.
        cache: What outlives a cluster: built binaries.
        source: This folder in the clone; never written to.
    """

    state: Path
    cache: Path
    source: Path

    @classmethod
    def from_environment(cls) -> "Layout":
        """Read LOCALCLUSTER_STATE, TRITON_OPERATOR_CACHE and XDG_CACHE_HOME."""
        home_cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return cls(
            state=_path("LOCALCLUSTER_STATE", Path("/var/lib/triton-operator-localcluster")),
            cache=_path("TRITON_OPERATOR_CACHE", home_cache / "triton-operator"),
            source=Path(__file__).resolve().parent,
        )

    @property
    def marker(self) -> Path:
        """The file without which `down` removes nothing: LOCALCLUSTER_STATE may name any folder."""
        return self.state / ".localcluster"

    @property
    def cluster_record(self) -> Path:
        """What the running cluster was started from; written when it became healthy."""
        return self.state / "cluster.json"

    @property
    def host_record(self) -> Path:
        """What the host looked like before."""
        return self.state / "host.json"

    @property
    def processes(self) -> Path:
        """One file for each process that was started."""
        return self.state / "processes"

    @property
    def logs(self) -> Path:
        """One file for each process, and the audit log."""
        return self.state / "logs"

    @property
    def audit_log(self) -> Path:
        """Every request to the API server, level Metadata."""
        return self.logs / "audit.log"

    @property
    def certificates(self) -> Path:
        """Certificates and keys."""
        return self.state / "certificates"

    @property
    def config(self) -> Path:
        """Rendered configuration files."""
        return self.state / "config"

    @property
    def volumes(self) -> Path:
        """One tmpfs for each persistent volume."""
        return self.state / "volumes"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.state / "kubeconfig"

    def kubeconfig_of(self, user: str) -> Path:
        """Return the kubeconfig of a part of the cluster."""
        return self.config / f"{user}.kubeconfig"

    def log_of(self, part: str) -> Path:
        """Return the log file of a process."""
        return self.logs / f"{part}.log"


def _path(variable: str, default: Path) -> Path:
    return Path(os.environ.get(variable) or default).expanduser().resolve()  # as /proc names mounts
