"""What scenarios are told in: files put on a volume, objects applied, states awaited, questions asked."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
from tests.builders import a_claim, a_repository, a_server
from tests.integration.eventually import eventually
from tests.onnx_models import SIZE, write_multiply
from tests.told import condition_of, summary
from tritonclient.grpc import service_pb2, service_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tests.builders import Builder
    from tests.integration.kube import Kube
    from tests.integration.kubelet_double import KubeletDouble
    from tests.integration.operator.operator_process import OperatorProcess
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

    def set_up(self, *, replicas: int = 1) -> None:
        """Apply what a model needs: sources, a repository, a server."""
        self.apply(a_claim(SOURCES), a_repository(), a_server().with_replicas(replicas))
        self.sources()

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
            found = self.kube.get(kind, name)
            condition = condition_of(found, type_)
            assert condition.get("status") == status, f"{kind}/{name}: {summary(found)}"
            assert condition.get("observedGeneration") == found["metadata"]["generation"]
            assert reason in ("", condition.get("reason")), f"{kind}/{name}: {summary(found)}"
            return found

        return eventually(check, within=within, because=self.explain)

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
