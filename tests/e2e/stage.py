"""What scenarios are told in: a namespace with real pods, files on a volume, states awaited."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import os
import re
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tritonclient.grpc
import tritonclient.http
from tests.builders import a_claim, a_model, a_repository, a_server
from tests.e2e.cluster import forwarded, kubectl
from tests.e2e.samples import Sample, light
from tests.integration.eventually import eventually
from tests.integration.kube import ApiError
from tests.onnx_models import SIZE, write_multiply
from tests.told import condition_of, expect_condition, summary
from tritonclient.utils import InferenceServerException

from triton_operator.clients.triton import KEY_HEADER
from triton_operator.plan.keeper_workload import KEY_FIELD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.builders import Builder, ServerBuilder
    from tests.e2e.cluster import Cluster
    from tests.e2e.installation import Installation
    from tests.integration.kube import Kube

Object = dict[str, Any]

SOURCES = "sources"
NETS = ("resnet50", "squeezenet")
BAD_PREFIX = "bad-"
"""Begins the names of models that a whole module needs, beside the nets."""
RELEASE = "24.10"
HTTP, GRPC = 8000, 8001
READY_SECONDS = 90
GONE_SECONDS = 60
ONES = Sample(Path(), {"x": np.ones((1, SIZE), np.float32)}, {"y": np.empty(0)})
KINDS = ("InferenceModel", "TritonServer", "ModelRepository", "Engine")
MARK = "triton-operator.io/end-to-end-test"
LABELS = {"pod-security.kubernetes.io/enforce": "restricted", MARK: "true"}


@dataclasses.dataclass(frozen=True)
class Stage:
    """One namespace with the operator at work in it."""

    cluster: Cluster
    installation: Installation
    kube: Kube

    @classmethod
    def create(cls, cluster: Cluster, installation: Installation, namespace: str) -> Stage:
        """Make the namespace; it admits only pods that run with the least rights."""
        metadata = {"name": namespace, "labels": LABELS}
        kube = cluster.kube(namespace)
        kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})

        def account() -> None:
            kube.get("ServiceAccount", "default")

        eventually(account)
        return cls(cluster=cluster, installation=installation, kube=kube)

    @property
    def namespace(self) -> str:
        """Return the namespace's name."""
        return self.kube.namespace

    def leave(self) -> None:
        """Delete the namespace, and don't wait for it."""
        self.cluster.kube().delete("Namespace", self.namespace)

    def wait_gone(self) -> None:
        """Wait until nothing is left of the namespace."""

        def gone() -> None:
            found = self.cluster.kube().find("Namespace", self.namespace)
            assert found is None, found["status"] if found else ""

        eventually(gone, within=GONE_SECONDS)

    # what a scenario sets up

    def apply(self, *objects: Builder | Object) -> None:
        """Apply objects in this order."""
        self.kube.apply(*(each if isinstance(each, dict) else each.build() for each in objects))

    def a_server(self, name: str = "default") -> ServerBuilder:
        """Return a server of one pod that runs our image of Triton."""
        resources = {"requests": {"cpu": "10m", "memory": "128Mi"}}
        image = self.cluster.images["triton-cpu"]
        server = a_server(name).with_spec(image=image, release=RELEASE, resources=resources)
        return server.with_shutdown(leave_seconds=0, exit_timeout_seconds=1)  # who ends pods need not wait

    def set_up(
        self,
        *,
        server: ServerBuilder | None = None,
        replicas: int = 1,
        retention: str = "168h",
        size: str = "64Mi",
    ) -> None:
        """Apply what a model needs: sources, a repository, a server."""
        repository = a_repository().with_retention(retention).with_spec(storage={"size": size})
        self.apply(repository, (server or self.a_server()).with_replicas(replicas))
        self.add_sources()

    def add_sources(self) -> None:
        """Make the volume of sources, and a pod through which files are put there."""
        pod = self.a_pod(SOURCES)
        pod["spec"]["containers"][0]["volumeMounts"] = [{"name": "sources", "mountPath": "/sources"}]
        pod["spec"]["volumes"] = [{"name": "sources", "persistentVolumeClaim": {"claimName": SOURCES}}]
        self.apply(a_claim(SOURCES, size="64Mi"), pod)
        kubectl("-n", self.namespace, "wait", f"pod/{SOURCES}", "--for=condition=Ready", "--timeout=90s")

    def a_pod(self, name: str) -> Object:
        """Return a pod that is not the operator's and does nothing."""
        return _idle_pod(name, self.cluster.images["engine-builder"])

    def put(self, name: str, content: bytes) -> str:
        """Put a file among the sources, whole or not at all, and return its URI."""
        command = 'mkdir -p "$(dirname "$1")" && cat > /sources/.new && mv /sources/.new "$1"'
        options = ("-n", self.namespace, "exec", "-i", SOURCES)
        kubectl(*options, "--", "sh", "-c", command, "sh", f"/sources/{name}", stdin=content)
        return f"pvc://{SOURCES}/{name}"

    def put_written(self, name: str, write: Callable[[Path], object]) -> str:
        """Put what a function writes to a path among the sources."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / Path(name).name
            write(path)
            return self.put(name, path.read_bytes())

    def put_model(self, name: str, factor: float) -> str:
        """Put a `multiply` model among the sources, and return its URI."""
        return self.put_written(name, lambda path: write_multiply(path, factor))

    def sha256(self, name: str) -> str:
        """Return the digest of a source."""
        options = ("-n", self.namespace, "exec", SOURCES)
        return kubectl(*options, "--", "sha256sum", f"/sources/{name}").stdout.split()[0]

    def serve_nets(self) -> None:
        """Serve the nets of the wheel, and wait until every pod does."""
        for net in NETS:
            sample = light(net)
            sha256 = hashlib.sha256(sample.path.read_bytes()).hexdigest()
            uri = self.put(f"{net}/model.onnx", sample.path.read_bytes())
            self.apply(a_model(net).with_version(1, uri, sha256=sha256))
        for net in NETS:
            self.wait_ready("InferenceModel", net)
        self.wait_ready("TritonServer", "default")

    # what it waits for

    def wait_ready(self, kind: str, name: str) -> Object:
        """Wait until an object is Ready at its present generation, and return it."""
        return self.wait_condition(kind, name, "Ready", "True")

    def wait_stalled(self, kind: str, name: str, reason: str) -> Object:
        """Wait until an object is Stalled for this reason, and return it."""
        return self.wait_condition(kind, name, "Stalled", "True", reason=reason)

    def wait_condition(self, kind: str, name: str, type_: str, status: str, *, reason: str = "") -> Object:
        """Wait for a condition of the present generation, and return the object."""

        def check() -> Object:
            return expect_condition(self.kube, kind, name, type_, status, reason=reason)

        return self.eventually(check)

    def eventually(self, check: Callable[[], Any], *, within: float = READY_SECONDS) -> Any:
        """Call until it fails no more; a failure tells what stands in the namespace."""

        def tolerant() -> Any:
            try:
                return check()
            except InferenceServerException as error:
                raise AssertionError(str(error)) from error

        return eventually(tolerant, within=within, because=self.explain)

    def message(self, kind: str, name: str, type_: str = "Ready") -> str:
        """Return the message of a condition."""
        return self.kube.condition(kind, name, type_)[2]

    def version_of(self, model: str, number: int = 1) -> Object:
        """Return what a model's status says about a version."""
        versions = self.kube.get("InferenceModel", model)["status"]["versions"]
        return next(each for each in versions if each["number"] == number)

    def discard(self, *models: str) -> None:
        """Delete models and wait until they are in no tree any more."""
        for model in models:
            self.kube.delete("InferenceModel", model)

        def gone() -> None:
            listed = self.kube.list("InferenceModel")
            served = sum(condition_of(each, "Stalled").get("status") != "True" for each in listed)
            assert self.kube.get("TritonServer", "default")["status"]["models"] <= served

        self.eventually(gone)

    def explain(self) -> str:
        """Return what may tell why a wait was in vain."""
        try:
            objects = [
                f"{kind}/{each['metadata']['name']}: {summary(each)}"
                for kind in KINDS
                for each in self.kube.list(kind)
            ]
        except ApiError as error:
            objects = [str(error)]
        shown = ("jobs,pods,deployments", "events")
        lists = [kubectl("-n", self.namespace, "get", each, check=False).stdout for each in shown]
        return "\n".join([*objects, *lists, "--- operator", self.installation.log(lines=40)])

    # what it asks

    def pods(self, component: str = "triton") -> list[Object]:
        """Return the pods of one of our components that are not on their way out."""
        found = self.kube.list("Pod", f"app.kubernetes.io/component={component}")
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def pod_names(self, component: str = "triton") -> list[str]:
        """Return the names of those pods."""
        return sorted(pod["metadata"]["name"] for pod in self.pods(component))

    @contextlib.contextmanager
    def reached(self, target: str, *ports: int) -> Iterator[dict[int, str]]:
        """Yield where this host reaches ports of `service/…` or `pod/…`: `host:port` by port."""
        if not self.cluster.is_local:
            with forwarded(self.namespace, target, *ports) as addresses:
                yield addresses
            return
        kind, _, name = target.partition("/")
        found = self.kube.get(kind.capitalize(), name)
        address = found["spec"]["clusterIP"] if kind == "service" else found["status"]["podIP"]
        yield {port: f"{address}:{port}" for port in ports}

    def ask(
        self,
        pod: str,
        model: str,
        sample: Sample,
        *,
        protocol: str,
        version: int | None = None,
        classes: int = 0,
    ) -> dict[str, np.ndarray]:
        """Send a sample's inputs to one pod, and return its answers, or so many of their best classes."""
        library = tritonclient.http if protocol == "http" else tritonclient.grpc
        port = HTTP if protocol == "http" else GRPC
        inputs = []
        for name, value in sample.inputs.items():
            entry = library.InferInput(name, list(value.shape), "FP32")
            entry.set_data_from_numpy(value)
            inputs.append(entry)
        outputs = [library.InferRequestedOutput(name, class_count=classes) for name in sample.outputs]
        with self.reached(f"pod/{pod}", port) as addresses:
            client = library.InferenceServerClient(addresses[port])
            try:
                answer = client.infer(model, inputs, model_version=str(version or ""), outputs=outputs)
                return {name: answer.as_numpy(name) for name in sample.outputs}
            finally:
                client.close()

    def served_factors(self, model: str, *, version: int | None = None) -> dict[str, float | None]:
        """Return by pod what a version of a `multiply` model, or the highest, multiplies by; None: none."""
        found: dict[str, float | None] = {}
        for pod in self.pod_names():
            try:
                answer = self.ask(pod, model, ONES, protocol="grpc", version=version)
                found[pod] = float(answer["y"][0, 0])
            except InferenceServerException:
                found[pod] = None
        return found

    def best_label(self, pod: str, model: str, *, protocol: str) -> str:
        """Return the label of the class to which a `multiply` model gives the most, the last."""
        rising = Sample(
            Path(), {"x": np.arange(1, SIZE + 1, dtype=np.float32).reshape(1, SIZE)}, ONES.outputs
        )
        (best,) = self.ask(pod, model, rising, protocol=protocol, classes=1)["y"].flat
        return str(best.decode().split(":")[2])

    def assert_nets_are_served(self) -> None:
        """Fail unless every pod answers for the nets as the wheel says."""
        for net in NETS:
            for pod in self.pod_names():
                light(net).compare(self.ask(pod, net, light(net), protocol="grpc"))

    def unload(self, pod: str, model: str) -> None:
        """Unload a model behind the operator's back, as somebody can who has the control key."""
        secrets = self.kube.list("Secret", "app.kubernetes.io/component=triton")
        (key,) = (base64.b64decode(secret["data"][KEY_FIELD]).decode() for secret in secrets)
        with self.reached(f"pod/{pod}", GRPC) as addresses:
            client = tritonclient.grpc.InferenceServerClient(addresses[GRPC])
            client.unload_model(model, headers={KEY_HEADER: key})
            client.close()

    def evict(self, pod: str) -> None:
        """Ask for a pod's end, as `kubectl drain` does."""
        metadata = {"name": pod, "namespace": self.namespace}
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata}
        self.kube.create_below("Pod", pod, "eviction", body)

    def kill(self, pod: Object) -> None:
        """Kill Triton in a pod without a word; on a cluster that isn't ours, with one."""
        name = pod["metadata"]["name"]
        (status,) = pod["status"]["containerStatuses"]
        if not self.cluster.is_local:
            kubectl("-n", self.namespace, "exec", name, "--", "sh", "-c", "kill 1")
            return
        container = status["containerID"].rpartition("/")[2]
        os.kill(_first_process(container), signal.SIGKILL)

    def loads(self) -> dict[str, int]:
        """Return by pod how often Triton says that it loaded a version."""
        return {
            pod: kubectl("-n", self.namespace, "logs", pod).stdout.count("successfully loaded")
            for pod in self.pod_names()
        }

    def turns(self, model: str, number: int) -> list[str]:
        """Return what happened to a version, as the model's story has it."""
        story = self.kube.get("InferenceModel", model)["status"]["history"]
        return [entry["reason"] for entry in story if entry.get("version") == number]

    def events(self, name: str) -> dict[str, list[str]]:
        """Return the messages of the Events about an object, by their reason."""
        found: dict[str, list[str]] = {}
        for event in self.kube.list("Event"):
            if event["involvedObject"]["name"] == name:
                found.setdefault(event["reason"], []).append(event["message"])
        return found

    def wait_events(self, name: str, *reasons: str) -> dict[str, list[str]]:
        """Wait for Events of these reasons about an object and return its Events; they come a little late."""

        def told() -> dict[str, list[str]]:
            found = self.events(name)
            assert set(reasons) <= found.keys(), found
            return found

        events: dict[str, list[str]] = self.eventually(told)
        return events

    @contextlib.contextmanager
    def node_closed(self, pod: Object) -> Iterator[None]:
        """Have the node of a pod take no more pods while the context is open."""
        node = pod["spec"]["nodeName"]
        kubectl("cordon", node)
        try:
            yield
        finally:
            kubectl("uncordon", node)

    def on_volume(self, repository: str = "default", *, below: str = "") -> list[str]:
        """Return the paths on a repository's volume as its keeper sees them."""
        keeper = f"deployment/keeper-{repository}"
        command = ("find", f"/repository/{below}", "-mindepth", "1", "-printf", "%P\\n")
        return sorted(kubectl("-n", self.namespace, "exec", keeper, "--", *command).stdout.split("\n")[:-1])


def remove_leftovers() -> None:
    """Remove the namespaces that a run left which was killed."""
    kubectl("delete", "namespace", "--selector", MARK, "--ignore-not-found", "--timeout=120s")


def _first_process(container: str) -> int:
    """Return the number on this host of a container's process 1."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended since
            if container not in (process / "cgroup").read_text():
                continue
            numbers = re.search(r"^NSpid:\s+(.*)$", (process / "status").read_text(), re.MULTILINE)
            if numbers and numbers[1].split()[-1] == "1":
                return int(process.name)
    raise AssertionError(f"container {container} has no process")


def _idle_pod(name: str, image: str) -> Object:
    container = {
        "name": "main",
        "image": image,
        "command": ["sleep", "infinity"],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 1000,
                "fsGroup": 1000,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
        },
    }
