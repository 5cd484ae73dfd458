"""The processes of the cluster: how each is started and how its health is seen."""

import sys
from dataclasses import dataclass

from localcluster.builds import binary_path
from localcluster.configuration import DNS_READY_PORT
from localcluster.layout import (
    API_SERVER,
    BRIDGE_ADDRESS,
    CLUSTER_DOMAIN,
    ETCD_CLIENT,
    ETCD_PEER,
    SERVICE_NETWORK,
    Layout,
)
from localcluster.nodes import NODES, Node


@dataclass(frozen=True)
class Part:
    """One process.

    Attributes:
        name: Name of its record and its log.
        argv: How it is started.
        health: An http(s) URL that answers 200, or a socket's path; empty: alive is healthy.
    """

    name: str
    argv: tuple[str, ...]
    health: str = ""


def containerd_of(node: Node) -> str:
    """Return the name of a node's containerd."""
    return f"containerd-{node.name}"


def kubelet_of(node: Node) -> str:
    """Return the name of a node's kubelet."""
    return f"kubelet-{node.name}"


def all_parts(layout: Layout) -> dict[str, Part]:
    """Return every part by name, in the order of starting."""
    parts = [
        _etcd(layout),
        *(_containerd(layout, node) for node in NODES),
        _api_server(layout),
        _controller_manager(layout),
        _scheduler(layout),
        *(_kubelet(layout, node) for node in NODES),
        _kube_proxy(layout),
        _coredns(layout),
        _provisioner(layout),
    ]
    return {part.name: part for part in parts}


def _binary(layout: Layout, name: str) -> str:
    return str(binary_path(layout, name))


def _etcd(layout: Layout) -> Part:
    argv = (
        _binary(layout, "etcd"),
        "--name=localcluster",
        f"--data-dir={layout.state / 'etcd'}",
        f"--listen-client-urls={ETCD_CLIENT}",
        f"--advertise-client-urls={ETCD_CLIENT}",
        f"--listen-peer-urls={ETCD_PEER}",
        f"--initial-advertise-peer-urls={ETCD_PEER}",
        f"--initial-cluster=localcluster={ETCD_PEER}",
        "--unsafe-no-fsync",  # a cluster does not survive its host anyway
        "--log-level=warn",
    )
    return Part("etcd", argv, f"{ETCD_CLIENT}/health")


def _containerd(layout: Layout, node: Node) -> Part:
    argv = ("containerd", "--config", str(node.folder(layout) / "containerd.toml"), "--log-level=warn")
    return Part(containerd_of(node), argv, str(node.containerd_socket(layout)))


def _api_server(layout: Layout) -> Part:
    pki = layout.certificates
    argv = (
        _binary(layout, "kube-apiserver"),
        f"--etcd-servers={ETCD_CLIENT}",
        f"--bind-address={BRIDGE_ADDRESS}",
        f"--advertise-address={BRIDGE_ADDRESS}",
        "--secure-port=6443",
        f"--service-cluster-ip-range={SERVICE_NETWORK}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        f"--token-auth-file={layout.config / 'tokens.csv'}",
        f"--client-ca-file={pki / 'ca.crt'}",
        f"--tls-cert-file={pki / 'apiserver.crt'}",
        f"--tls-private-key-file={pki / 'apiserver.key'}",
        f"--service-account-issuer=https://kubernetes.default.svc.{CLUSTER_DOMAIN}",
        f"--service-account-key-file={pki / 'service-account.pub'}",
        f"--service-account-signing-key-file={pki / 'service-account.key'}",
        f"--kubelet-certificate-authority={pki / 'ca.crt'}",
        f"--kubelet-client-certificate={pki / 'apiserver-kubelet-client.crt'}",
        f"--kubelet-client-key={pki / 'apiserver-kubelet-client.key'}",
        "--kubelet-preferred-address-types=InternalIP",  # the nodes' names resolve nowhere
        f"--requestheader-client-ca-file={pki / 'front-proxy-ca.crt'}",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        f"--proxy-client-cert-file={pki / 'front-proxy-client.crt'}",
        f"--proxy-client-key-file={pki / 'front-proxy-client.key'}",
        "--enable-aggregator-routing=true",
        f"--audit-policy-file={layout.config / 'audit-policy.json'}",
        f"--audit-log-path={layout.audit_log}",
        "--audit-log-maxsize=500",
        "--audit-log-maxbackup=3",
    )
    return Part("kube-apiserver", argv, f"{API_SERVER}/readyz")


def _controller_manager(layout: Layout) -> Part:
    pki = layout.certificates
    kubeconfig = layout.kubeconfig_of("kube-controller-manager")
    argv = (
        _binary(layout, "kube-controller-manager"),
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
        "--use-service-account-credentials=true",
        f"--service-account-private-key-file={pki / 'service-account.key'}",
        f"--root-ca-file={pki / 'ca.crt'}",
        f"--cluster-signing-cert-file={pki / 'ca.crt'}",
        f"--cluster-signing-key-file={pki / 'ca.key'}",
    )
    return Part("kube-controller-manager", argv, "https://127.0.0.1:10257/healthz")


def _scheduler(layout: Layout) -> Part:
    kubeconfig = layout.kubeconfig_of("kube-scheduler")
    argv = (
        _binary(layout, "kube-scheduler"),
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
    )
    return Part("kube-scheduler", argv, "https://127.0.0.1:10259/healthz")


def _kubelet(layout: Layout, node: Node) -> Part:
    folder = node.folder(layout)
    labels = ",".join(f"{key}={value}" for key, value in node.labels().items())
    argv = (
        _binary(layout, "kubelet"),
        f"--config={folder / 'kubelet.json'}",
        f"--kubeconfig={layout.kubeconfig_of(node.name)}",
        f"--root-dir={folder / 'kubelet'}",
        f"--cert-dir={folder / 'kubelet-certificates'}",
        f"--hostname-override={node.name}",
        f"--node-ip={node.address}",
        f"--node-labels={labels}",
        "--v=1",
    )
    return Part(kubelet_of(node), argv, f"http://127.0.0.1:{node.health_port}/healthz")


def _kube_proxy(layout: Layout) -> Part:
    # One is enough for two nodes: both share the host's network and therefore its rules.
    argv = (_binary(layout, "kube-proxy"), f"--config={layout.config / 'kube-proxy.json'}")
    return Part("kube-proxy", argv, "http://127.0.0.1:10256/healthz")


def _coredns(layout: Layout) -> Part:
    argv = (_binary(layout, "coredns"), "-conf", str(layout.config / "Corefile"))
    return Part("coredns", argv, f"http://127.0.0.1:{DNS_READY_PORT}/ready")


def _provisioner(layout: Layout) -> Part:
    argv = (sys.executable, "-B", str(layout.source / "__main__.py"), "provision", str(layout.state))
    return Part("provisioner", argv)
