"""Clients of the served models: every answer must come, and be one that the story allows at that moment."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import grpc
import numpy as np
from tests.integration.kube import Kube, Object
from tests.onnx_models import SIZE
from tests.told import condition_of
from tritonclient.grpc import service_pb2, service_pb2_grpc

if TYPE_CHECKING:
    from tests.integration.kubelet_double import KubeletDouble

PAUSE_SECONDS = 0.05
LOOK_SECONDS = 0.2
ANSWER_SECONDS = 10
TELL_SECONDS = 1.0
"""How long the kubelet may take to tell that a container has ended."""
SERVICE = "triton-default"
MOST_TOLD = 5


@dataclasses.dataclass
class Expectation:
    """By model the factors that may answer, in the order in which a pod may go from one to the next.

    Models are named `model`, or `model/number` for requests that ask for this version.
    """

    factors: Mapping[str, tuple[float, ...]]
    reached: dict[tuple[str, str], int] = dataclasses.field(default_factory=dict)

    def objection(self, pod: str, model: str, factor: float) -> str:
        """Return what is wrong with an answer, or nothing."""
        allowed = self.factors[model]
        if factor not in allowed:
            return (
                f"{model} on {pod} multiplied by {factor:g}, not by {' or '.join(f'{f:g}' for f in allowed)}"
            )
        place, before = allowed.index(factor), self.reached.get((pod, model), 0)
        if place < before:
            return f"{model} on {pod} multiplied by {factor:g} again after {allowed[before]:g}"
        self.reached[pod, model] = place
        return ""


class Traffic:
    """Asks every pod behind the Service for every model that is expected, all the time."""

    def __init__(self, kube: Kube, kubelet: KubeletDouble) -> None:
        self.answered = 0
        self.lost: list[str] = []
        self._kube = kube.within(kube.namespace)  # a session is one thread's
        self._kubelet = kubelet
        self._expectation = Expectation({})
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"traffic {kube.namespace}", daemon=True)
        self._channels: dict[str, grpc.Channel] = {}
        self._pods: dict[str, str] = {}
        self._looked = 0.0

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def stop(self) -> None:
        """Ask no more."""
        self._ending.set()
        self._thread.join()
        for channel in self._channels.values():
            channel.close()
        self._kube.close()

    def expect(self, factors: Mapping[str, tuple[float, ...]]) -> None:
        """Say what may answer from now on; models that are left out are not asked for any more."""
        self._expectation = Expectation(factors)

    def _run(self) -> None:
        while not self._ending.wait(PAUSE_SECONDS):
            if self._expectation.factors:
                try:
                    self._ask_all()
                except Exception as error:  # noqa: BLE001 - a thread that died must not look like silence
                    self.lost.append(f"the clients failed: {error!r}")
                    return

    def _ask_all(self) -> None:
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._pods, self._looked = self._serving(), time.monotonic()
        for pod in sorted(self._pods):
            expectation = self._expectation
            for model in expectation.factors:
                self._ask(pod, model, expectation)

    def _serving(self) -> dict[str, str]:
        return in_service(self._kube, SERVICE)

    def _ask(self, pod: str, model: str, expectation: Expectation) -> None:
        double = self._kubelet.tritons(self._kube.namespace).get(pod)
        if double is None:
            return  # it went since we looked
        try:
            objection = expectation.objection(pod, model, self._factor(pod, double.address, model))
        except grpc.RpcError as error:
            if self._expectation is not expectation or self._has_left(pod):
                return  # the model went, or the pod left the Service, since we looked
            objection = f"{model} on {pod}: {error.details() if isinstance(error, grpc.Call) else error}"
        if objection:
            self._tell(objection)
        else:
            self.answered += 1

    def _has_left(self, pod: str) -> bool:
        """Return whether a pod is not the one any more that we asked, when there was time to tell."""
        deadline = time.monotonic() + TELL_SECONDS
        while (found := self._serving()).get(pod) == self._pods[pod] and time.monotonic() < deadline:
            time.sleep(PAUSE_SECONDS)
        return found.get(pod) != self._pods[pod]

    def _factor(self, pod: str, address: str, model: str) -> float:
        name, _, number = model.partition("/")
        request = service_pb2.ModelInferRequest(model_name=name, model_version=number)
        values = np.ones((1, SIZE), dtype=np.float32)
        request.inputs.add(name="x", datatype="FP32", shape=values.shape)
        request.raw_input_contents.append(values.tobytes())
        stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel(pod, address))
        answer = stub.ModelInfer(request, timeout=ANSWER_SECONDS).raw_output_contents[0]
        return float(np.frombuffer(answer, dtype=np.float32)[0])

    def _channel(self, pod: str, address: str) -> grpc.Channel:
        """Return a connection to this incarnation of a pod; one to its former is slow to try again."""
        incarnation = self._pods[pod]
        if incarnation not in self._channels:
            options = [("grpc.use_local_subchannel_pool", 1)]
            self._channels[incarnation] = grpc.insecure_channel(address, options=options)
        return self._channels[incarnation]

    def _tell(self, objection: str) -> None:
        if len(self.lost) < MOST_TOLD:
            self.lost.append(f"{time.strftime('%H:%M:%S')} {objection}")


def in_service(kube: Kube, service: str) -> dict[str, str]:
    """Return the pods that a Service sends requests to, with what tells one incarnation from the next."""
    found = kube.find("Service", service)
    if found is None:
        return {}
    selector = ",".join(f"{key}={value}" for key, value in found["spec"]["selector"].items())
    pods = [pod for pod in kube.list("Pod", selector) if _gets_requests(pod)]
    return {pod["metadata"]["name"]: _incarnation(pod) for pod in pods}


def _gets_requests(pod: Object) -> bool:
    return "deletionTimestamp" not in pod["metadata"] and condition_of(pod, "Ready").get("status") == "True"


def _incarnation(pod: Object) -> str:
    return "/".join(each.get("containerID", "") for each in pod["status"].get("containerStatuses", []))
