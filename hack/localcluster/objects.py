"""Objects that make a cluster of the parts: DNS, the storage class and the nodes' GPUs."""

from typing import Any

from localcluster.api import Api, ApiError
from localcluster.layout import BRIDGE_ADDRESS, DNS_ADDRESS, DNS_PORT, STORAGE_CLASS
from localcluster.nodes import GPUS_PER_NODE, Node
from localcluster.users import COREDNS

PROVISIONER = "localcluster.triton-operator/shared"
DNS_PORTS = (("dns", "UDP"), ("dns-tcp", "TCP"))
_RBAC = "/apis/rbac.authorization.k8s.io/v1"
_READ = ["get", "list", "watch"]

OBJECTS: dict[str, dict[str, Any]] = {
    f"{_RBAC}/clusterroles/{COREDNS}": {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": COREDNS},
        "rules": [
            {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": _READ},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": _READ},
        ],
    },
    f"{_RBAC}/clusterrolebindings/{COREDNS}": {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": COREDNS},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": COREDNS},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": COREDNS}],
    },
    "/api/v1/namespaces/kube-system/services/kube-dns": {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": {"k8s-app": "kube-dns"}},
        # Without a selector: CoreDNS is a process of the host, and the slice below names its address.
        "spec": {
            "clusterIP": DNS_ADDRESS,
            "ports": [{"name": name, "protocol": protocol, "port": 53} for name, protocol in DNS_PORTS],
        },
    },
    "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices/kube-dns": {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "kube-dns",
            "namespace": "kube-system",
            "labels": {"kubernetes.io/service-name": "kube-dns"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [BRIDGE_ADDRESS], "conditions": {"ready": True}}],
        "ports": [{"name": name, "protocol": protocol, "port": DNS_PORT} for name, protocol in DNS_PORTS],
    },
    f"/apis/storage.k8s.io/v1/storageclasses/{STORAGE_CLASS}": {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": STORAGE_CLASS,
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": PROVISIONER,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "Immediate",
    },
}


def apply_all(api: Api) -> None:
    """Apply every object."""
    for path, body in OBJECTS.items():
        api.apply(path, body)


def give_gpus(api: Api, node: Node) -> bool:
    """Give a node its GPUs; tell whether it was there to take them."""
    count = {"nvidia.com/gpu": str(GPUS_PER_NODE)}
    try:
        api.merge(f"/api/v1/nodes/{node.name}/status", {"status": {"capacity": count, "allocatable": count}})
    except ApiError:
        return False
    return True


def node_is_ready(api: Api, node: Node) -> bool:
    """Tell whether a node is Ready and has its GPUs."""
    try:
        status = api.get(f"/api/v1/nodes/{node.name}")["status"]
    except ApiError:
        return False
    ready = any(
        entry["type"] == "Ready" and entry["status"] == "True" for entry in status.get("conditions", [])
    )
    return ready and status.get("allocatable", {}).get("nvidia.com/gpu") == str(GPUS_PER_NODE)


def exists(api: Api, path: str) -> bool:
    """Tell whether an object exists."""
    try:
        api.get(path)
    except ApiError:
        return False
    return True
