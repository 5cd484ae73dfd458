"""What the demo reads from the cluster: the four kinds, and the Jobs, Pods and Events around them."""

import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import kubernetes.client
import kubernetes.config
import kubernetes.watch
import urllib3.exceptions

from demo.errors import DemoError

Object = Mapping[str, Any]

GROUP, VERSION = "triton-operator.io", "v1alpha1"
KINDS = {
    "ModelRepository": "modelrepositories",
    "TritonServer": "tritonservers",
    "InferenceModel": "inferencemodels",
    "Engine": "engines",
}
"""Our four kinds with the plural under which the API serves them."""
COMPONENT = "app.kubernetes.io/component"
SERVER = "triton-operator.io/server"
WATCH_SECONDS = 10
"""A watch is made anew after so long, and ends no later once nobody wants it."""


@dataclass(frozen=True)
class Snapshot:
    """What a namespace holds at one moment: kind → objects."""

    objects: Mapping[str, list[Object]] = field(default_factory=dict)

    def of(self, kind: str) -> list[Object]:
        """Return the objects of a kind."""
        return self.objects.get(kind, [])

    def get(self, kind: str, name: str) -> Object | None:
        """Return an object, if it is there."""
        return next((found for found in self.of(kind) if found["metadata"]["name"] == name), None)

    def pods(self, component: str, *, server: str = "") -> list[Object]:
        """Return the pods of one of the operator's components: triton (of one server), keeper or jobs."""
        found = (pod for pod in self.of("Pod") if label(pod, COMPONENT) == component)
        return [pod for pod in found if server in ("", label(pod, SERVER))]


class Cluster:
    """The cluster that the kubeconfig's current context names."""

    def __init__(self) -> None:
        try:
            kubernetes.config.load_kube_config()
        except kubernetes.config.ConfigException as error:
            raise DemoError(f"no cluster: {error}; run this through `make demo`") from error
        self._core = kubernetes.client.CoreV1Api()
        self._batch = kubernetes.client.BatchV1Api()
        self._custom = kubernetes.client.CustomObjectsApi()

    def snapshot(self, namespace: str) -> Snapshot:
        """Read everything that the demo shows of a namespace."""
        objects: dict[str, list[Object]] = {
            kind: self._custom.list_namespaced_custom_object(GROUP, VERSION, namespace, plural)["items"]
            for kind, plural in KINDS.items()
        }
        objects["Job"] = _items(self._batch.list_namespaced_job(namespace, _preload_content=False))
        objects["Pod"] = _items(self._core.list_namespaced_pod(namespace, _preload_content=False))
        objects["Event"] = _items(self._core.list_namespaced_event(namespace, _preload_content=False))
        return Snapshot(objects)

    def service_address(self, namespace: str, name: str) -> str:
        """Return a Service's cluster IP."""
        return str(self._core.read_namespaced_service(name, namespace).spec.cluster_ip)

    def watch_model(self, namespace: str, name: str, *, ended: threading.Event) -> Iterator[Object]:
        """Yield an InferenceModel's states as they come, until the event is set."""
        plural = KINDS["InferenceModel"]
        where = {"group": GROUP, "version": VERSION, "namespace": namespace, "plural": plural}
        while not ended.is_set():
            found = kubernetes.watch.Watch().stream(
                self._custom.list_namespaced_custom_object,
                **where,
                field_selector=f"metadata.name={name}",
                timeout_seconds=WATCH_SECONDS,
            )
            try:
                for event in found:
                    if ended.is_set():
                        return
                    yield event["object"]
            except (kubernetes.client.ApiException, urllib3.exceptions.HTTPError):
                continue  # a new watch begins with what stands there


def condition(obj: Object, type_: str) -> Mapping[str, Any]:
    """Return a condition of an object; an empty one where it has none."""
    found = (entry for entry in obj.get("status", {}).get("conditions", []) if entry["type"] == type_)
    return next(found, {})


def is_true(obj: Object | None, type_: str) -> bool:
    """Tell whether an object is there and a condition of it holds for its present spec."""
    if obj is None:
        return False
    found = condition(obj, type_)
    current = found.get("observedGeneration", 0) >= obj["metadata"].get("generation", 0)
    return bool(found.get("status") == "True" and current)


def label(obj: Object, name: str) -> str:
    """Return a label's value, or nothing."""
    return str(obj["metadata"].get("labels", {}).get(name, ""))


def _items(answer: Any) -> list[Object]:
    items: list[Object] = json.loads(answer.data)["items"]
    return items
