"""Configuration files of the parts, rendered from the layout alone."""

import json
from pathlib import Path
from typing import Any

from localcluster.layout import (
    BRIDGE,
    BRIDGE_ADDRESS,
    CLUSTER_DOMAIN,
    DNS_ADDRESS,
    DNS_PORT,
    PAUSE_IMAGE,
    POD_NETWORK,
    Layout,
)
from localcluster.nodes import NODES, Node
from localcluster.packages import CNI_FOLDER

DNS_READY_PORT = 18181
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}
COREFILE = f"""\
{CLUSTER_DOMAIN}:{DNS_PORT} in-addr.arpa:{DNS_PORT} {{
    bind {BRIDGE_ADDRESS}
    errors
    ready 127.0.0.1:{DNS_READY_PORT}
    kubernetes {CLUSTER_DOMAIN} in-addr.arpa {{
        kubeconfig KUBECONFIG
        pods insecure
        ttl 1
    }}
}}
# Nothing is forwarded: names outside the cluster do not exist, at once instead of after a timeout.
.:{DNS_PORT} {{
    bind {BRIDGE_ADDRESS}
    errors
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
"""


def render_all(layout: Layout) -> dict[Path, str]:
    """Return every configuration file that holds no secret."""
    files = {
        layout.config / "audit-policy.json": json.dumps(AUDIT_POLICY),
        layout.config / "Corefile": COREFILE.replace("KUBECONFIG", str(layout.kubeconfig_of("coredns"))),
        layout.config / "kube-proxy.json": json.dumps(_kube_proxy(layout)),
    }
    for node in NODES:
        folder = node.folder(layout)
        files[folder / "containerd.toml"] = _containerd(layout, node)
        files[folder / "cni" / "10-bridge.conflist"] = json.dumps(_cni(layout, node))
        files[folder / "kubelet.json"] = json.dumps(_kubelet(layout, node))
    return files


def write_all(layout: Layout) -> None:
    """Write the configuration files."""
    for path, text in render_all(layout).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def _kube_proxy(layout: Layout) -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clientConnection": {"kubeconfig": str(layout.kubeconfig_of("kube-proxy"))},
        "hostnameOverride": NODES[0].name,
        "clusterCIDR": POD_NETWORK,
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "oomScoreAdj": 0,
        "iptables": {"minSyncPeriod": "100ms", "localhostNodePorts": False},
        # Zero leaves the host's connection tracking as it is.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }


def _kubelet(layout: Layout, node: Node) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": node.address,
        "port": 10250,
        "healthzBindAddress": "127.0.0.1",
        "healthzPort": node.health_port,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(layout.certificates / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(layout.certificates / f"{node.name}.crt"),
        "tlsPrivateKeyFile": str(layout.certificates / f"{node.name}.key"),
        "clusterDNS": [DNS_ADDRESS],
        "clusterDomain": CLUSTER_DOMAIN,
        "containerRuntimeEndpoint": f"unix://{node.containerd_socket(layout)}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{node.cgroup}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "makeIPTablesUtilChains": False,
        "oomScoreAdj": 0,
        "podLogsDir": str(node.folder(layout) / "pod-logs"),
        "volumePluginDir": str(node.folder(layout) / "volume-plugins"),
        "syncFrequency": "10s",
        "nodeStatusUpdateFrequency": "5s",
        # A half-full disk must not make it collect images: nothing could be pulled again.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "1%",
            "nodefs.inodesFree": "1%",
            "imagefs.available": "1%",
        },
    }


def _cni(layout: Layout, node: Node) -> dict[str, Any]:
    first, last = node.pod_range
    pods = {"subnet": POD_NETWORK, "rangeStart": first, "rangeEnd": last, "gateway": BRIDGE_ADDRESS}
    addresses = {
        "type": "host-local",
        "dataDir": str(node.folder(layout) / "cni-addresses"),
        "ranges": [[pods]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": BRIDGE, "isGateway": True, "hairpinMode": True, "ipam": addresses}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "1.0.0", "name": "localcluster", "plugins": [bridge, ports]}


def _containerd(layout: Layout, node: Node) -> str:
    folder = node.folder(layout)
    return f"""\
version = 2
root = "{folder}/containerd"
state = "{folder}/run"
disabled_plugins = ["io.containerd.snapshotter.v1.devmapper", "io.containerd.tracing.processor.v1.otlp"]

[grpc]
  address = "{node.containerd_socket(layout)}"

[plugins."io.containerd.internal.v1.opt"]
  path = "{folder}/opt"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  # Without CAP_SYS_RESOURCE a sandbox's score can't be lowered, and every sandbox would fail.
  restrict_oom_score_adj = true
  # Below our own folder, so that one unmount finds them all.
  netns_mounts_under_state_dir = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"

[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"
  default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  Root = "{folder}/runc"
  SystemdCgroup = false

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{CNI_FOLDER}"
  conf_dir = "{folder}/cni"
"""
