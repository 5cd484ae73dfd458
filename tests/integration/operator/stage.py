"""What scenarios are told in: files put on a volume, objects applied, states awaited, questions asked."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections import Counter
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
from tests.builders import a_claim, a_model, a_repository, a_server
from tests.integration.eventually import eventually
from tests.integration.operator.traffic import Traffic, in_service
from tests.onnx_models import SIZE, write_multiply
from tests.told import expect_condition, summary, version_of
from tritonclient.grpc import service_pb2, service_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from tests.builders import Builder, ModelBuilder, ServerBuilder
    from tests.integration.kube import Kube
    from tests.integration.kubelet_double import KubeletDouble
    from tests.integration.operator.operator_process import OperatorProcess
    from tests.integration.pod_double import PodDouble
    from tests.integration.triton_double import TritonDouble

SOURCES = "sources"
READY_SECONDS = 60
RELEASE = "24.10"

Object = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Stage:
    """One namespace with the operator at work in it."""

    kube: Kube
    kubelet: KubeletDouble
    operator: OperatorProcess

    # what a scenario sets up

    def apply(self, *objects: Builder | Object) -> None:
        """Apply objects in this order."""
        self.kube.apply(*(each if isinstance(each, dict) else each.build() for each in objects))

    def set_up(self, *, replicas: int = 1, **server: Any) -> None:
        """Apply what a model needs: sources, a repository, a server with these fields of its spec."""
        self.apply(a_claim(SOURCES), a_repository(), self.a_server(replicas=replicas, **server))
        self.sources()

    def a_server(self, **spec: Any) -> ServerBuilder:
        """Return the server `default` with these fields of its spec."""
        return a_server().with_spec(**spec)

    def a_model(self, name: str, factor: float, **spec: Any) -> ModelBuilder:
        """Put a `multiply` model among the sources, and return a model whose version 1 it is."""
        return a_model(name).with_version(1, self.put_model(f"{name}-1.onnx", factor)).with_spec(**spec)

    def serve(self, name: str, factor: float, **spec: Any) -> ModelBuilder:
        """Have version 1 of a `multiply` model served by every pod, with these fields of its spec."""
        model = self.a_model(name, factor, **spec)
        self.apply(model)
        self.wait_ready("InferenceModel", name)
        return model

    def sources(self) -> Path:
        """Return the directory behind the claim `sources`, once it is there."""
        directory = self.kubelet.volume(self.kube.namespace, SOURCES)

        def provisioned() -> None:
            assert directory.is_dir(), "the claim has no volume"

        eventually(provisioned)
        return directory

    def put_model(self, name: str, factor: float) -> str:
        """Put a `multiply` model among the sources, and return its URI."""
        write_multiply(self.sources() / name, factor)
        return uri_of(name)

    def sha256(self, name: str) -> str:
        """Return the digest of a source."""
        return hashlib.sha256((self.sources() / name).read_bytes()).hexdigest()

    # what it waits for

    def wait_ready(self, kind: str, name: str) -> Object:
        """Wait until an object is Ready at its present generation, and return it."""
        return self.wait_condition(kind, name, "Ready", "True")

    def wait_condition(
        self,
        kind: str,
        name: str,
        type_: str,
        status: str,
        *,
        reason: str = "",
        within: float = READY_SECONDS,
    ) -> Object:
        """Wait for a condition of the present generation, and return the object."""

        def check() -> Object:
            return expect_condition(self.kube, kind, name, type_, status, reason=reason)

        return eventually(check, within=within, because=self.explain)

    def wait_version(self, model: str, number: int, state: str, *, reason: str = "") -> Object:
        """Wait until the status of a model says this of a version, and return what it says of it."""

        def check() -> Object:
            found = self.kube.get("InferenceModel", model)
            version = version_of(found, number)
            assert version.get("state") == state, summary(found)
            assert reason in ("", version["reason"]), summary(found)
            return version

        return eventually(check, within=READY_SECONDS, because=self.explain)

    def wait_factors(self, model: str, *factors: float | None) -> None:
        """Wait until the pods multiply by these factors, in any order; None: one serves none."""

        def check() -> None:
            found = list(self.served_factors(model).values())
            assert Counter(found) == Counter(factors), found

        eventually(check, within=READY_SECONDS, because=self.explain)

    def wait_event(self, name: str, reason: str, *words: str, type_: str = "") -> Object:
        """Wait for an Event about an object of this name, with all of these words in its message."""

        def check() -> Object:
            found = [e for e in self.events(name) if e["reason"] == reason and type_ in ("", e["type"])]
            event, *_ = (event for event in found if all(word in event["message"] for word in words))
            return event

        try:
            return eventually(check, because=self.explain)
        except AssertionError as error:
            told = "\n".join(f"{e['type']} {e['reason']}: {e['message']}" for e in self.events(name))
            raise AssertionError(f"no Event {type_} {reason} {words} about {name}, but\n{told}") from error

    def message(self, kind: str, name: str, type_: str = "Ready") -> str:
        """Return the message of a condition."""
        return self.kube.condition(kind, name, type_)[2]

    def wait_gone(self, kind: str, name: str) -> None:
        """Wait until there is no such object."""

        def gone() -> None:
            assert self.kube.find(kind, name) is None, f"{kind}/{name} is still there"

        eventually(gone, because=self.explain)

    def explain(self) -> str:
        """Return what may tell why a wait was in vain."""
        kinds = ("InferenceModel", "TritonServer", "ModelRepository", "Engine", "Job", "Pod")
        objects = [
            f"{kind}/{each['metadata']['name']}: {summary(each)}"
            for kind in kinds
            for each in self.kube.list(kind)
        ]
        logs = self.kubelet.logs(self.kube.namespace)
        return "\n".join([*objects, logs, f"--- operator\n{self.operator.tail()}"])

    # what it asks

    def pods(self) -> dict[str, PodDouble]:
        """Return the Triton pods by name."""
        return {pod.name: pod for pod in self.kubelet.pods(self.kube.namespace, "triton")}

    def tritons(self) -> dict[str, TritonDouble]:
        """Return the Triton doubles by pod name."""
        return self.kubelet.tritons(self.kube.namespace)

    def answer(self, pod: str, model: str, *, version: int | None = None) -> tuple[int, np.ndarray]:
        """Ask one pod, and return the version that answered and its answer to ones."""
        values = np.ones((1, SIZE), dtype=np.float32)
        request = service_pb2.ModelInferRequest(model_name=model, model_version=str(version or ""))
        request.inputs.add(name="x", datatype="FP32", shape=values.shape)
        request.raw_input_contents.append(values.tobytes())
        with grpc.insecure_channel(self.tritons()[pod].address) as channel:
            response = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=10)
        return int(response.model_version), np.frombuffer(response.raw_output_contents[0], dtype=np.float32)

    def served_factors(self, model: str, *, pods: Iterable[str] | None = None) -> dict[str, float | None]:
        """Return by pod what the highest version of a `multiply` model multiplies by; None: not served."""
        factors: dict[str, float | None] = {}
        for pod in self.tritons() if pods is None else pods:
            factors[pod] = None
            with contextlib.suppress(grpc.RpcError):
                factors[pod] = float(self.answer(pod, model)[1][0])
        return factors

    def calls(self) -> dict[str, tuple[dict[str, int], dict[str, int]]]:
        """Return loads and unloads by pod and model: what must not grow while nothing changes."""
        return {
            pod: (dict(each.counts.loads), dict(each.counts.unloads)) for pod, each in self.tritons().items()
        }

    def events(self, name: str) -> list[Object]:
        """Return the Events about objects of this name, oldest first."""
        found = [each for each in self.kube.list("Event") if each["involvedObject"]["name"] == name]
        return sorted(found, key=lambda each: each.get("eventTime") or each["metadata"]["creationTimestamp"])

    def story(self, model: str) -> list[tuple[int | None, str]]:
        """Return version and reason of every entry in the history of a model."""
        history = self.kube.get("InferenceModel", model)["status"].get("history", [])
        return [(entry.get("version"), entry["reason"]) for entry in history]

    def in_service(self, service: str = "triton-default") -> set[str]:
        """Return the pods that a Service sends requests to."""
        return set(in_service(self.kube, service))

    @contextlib.contextmanager
    def asked(self, factors: Mapping[str, tuple[float, ...]]) -> Iterator[Traffic]:
        """Have clients ask all the time, and fail if a request was lost or an answer is not one of these.

        The factors of a model (or of `model/number`) stand in the order in which a pod may go from one to
        the next. A client whose pod was just killed under it has lost nothing.
        """
        traffic = Traffic(self.kube, self.kubelet)
        traffic.expect(factors)
        traffic.start()
        try:
            self._wait_answers(traffic)
            yield traffic
            self._wait_answers(traffic)
        finally:
            traffic.stop()
        assert not traffic.lost, "; ".join(traffic.lost)

    def _wait_answers(self, traffic: Traffic) -> None:
        """Wait until clients were answered a few times more."""
        enough = traffic.answered + 10

        def answered() -> None:
            assert traffic.lost or traffic.answered >= enough, f"{traffic.answered} requests were answered"

        eventually(answered, because=self.explain)

    def tree(self, server: str = "default") -> Path:
        """Return the directory that a server's pods read."""
        return self.volume() / "servers" / server / RELEASE

    def volume(self, repository: str = "default") -> Path:
        """Return the directory behind a repository's own claim."""
        return self.kubelet.volume(self.kube.namespace, f"repository-{repository}")

    def resource_versions(self) -> dict[str, str]:
        """Return the version of every object that the operator writes or owns."""
        kinds = (
            "InferenceModel",
            "TritonServer",
            "ModelRepository",
            "Engine",
            "Job",
            "Deployment",
            "Service",
            "Secret",
            "PersistentVolumeClaim",
        )
        return {
            f"{kind}/{each['metadata']['name']}": each["metadata"]["resourceVersion"]
            for kind in kinds
            for each in self.kube.list(kind)
        }


def uri_of(name: str) -> str:
    """Return the URI of a file among the sources."""
    return f"pvc://{SOURCES}/{name}"
