"""A small Triton that speaks the real gRPC protocol: explicit mode, restricted protocols, onnxruntime.

It stands for the server where real ones would cost too much, and can be told to misbehave.
`triton/test_contract.py` runs the same calls against it and against the real server.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from concurrent import futures
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
import numpy as np
from tests.integration.triton_repository import (
    CrashError,
    Faults,
    LoadError,
    PollError,
    Repository,
    Version,
)
from tests.integration.triton_tensors import Refused, add_output, classified, datatype, feeds, shape_of
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RESTRICTED = frozenset({"RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload", "ModelConfig"})


@dataclasses.dataclass
class Counts:
    """Calls that came in, by model: what a test counts to see that nothing was repeated."""

    loads: Counter[str] = dataclasses.field(default_factory=Counter)
    unloads: Counter[str] = dataclasses.field(default_factory=Counter)
    infers: Counter[str] = dataclasses.field(default_factory=Counter)


class TritonDouble:
    """One server on one address; `control` is header and key of the restricted protocols."""

    def __init__(
        self,
        directory: Path,
        *,
        address: str,
        identity: str = "triton",
        control: tuple[str, str] | None = None,
        faults: Faults | None = None,
        crashed: Callable[[], object] = lambda: None,
    ) -> None:
        self.address = address
        self.identity = identity
        self.faults = faults or Faults()
        self.counts = Counts()
        self.repository = Repository(directory, self.faults)
        self._control = control
        self._crashed = crashed
        self._server: grpc.Server | None = None

    def start(self) -> None:
        """Load what lies on disk, then open the port, as the real server does.

        Raises:
            CrashError: what lies there has ended the server.
        """
        self.repository.start()
        pool = futures.ThreadPoolExecutor(max_workers=16, thread_name_prefix=f"triton-{self.address}")
        server = grpc.server(
            pool, options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)]
        )
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(_Servicer(self), server)
        port = server.add_insecure_port(self.address)
        self.address = f"{self.address.rpartition(':')[0]}:{port}"
        server.start()
        self._server = server

    def stop(self, *, grace_seconds: float = 0) -> None:
        """Close the port; calls in flight are cut when the grace period is over."""
        if self._server:
            self._server.stop(grace=grace_seconds).wait()
            self._server = None

    def crash(self, context: grpc.ServicerContext) -> None:
        """End as a process does that is killed; the call that did it gets no answer."""
        server, self._server = self._server, None
        if server:
            server.stop(grace=0)
            self._crashed()
        while context.is_active():
            time.sleep(0.01)

    def restart(self) -> None:
        """Lose everything that was loaded and start again from disk, like a container restart."""
        self.stop()
        self.start()

    def admit(self, call: str, context: grpc.ServicerContext) -> None:
        """Hold the call while the server hangs, and refuse it without the control key."""
        while self.faults.hang and context.is_active():
            time.sleep(0.02)
        if self._control is None or call not in RESTRICTED:
            return
        header = f"triton-grpc-protocol-{self._control[0]}"
        if dict(context.invocation_metadata()).get(header) != self._control[1]:
            raise Refused(
                grpc.StatusCode.UNAVAILABLE, f"This protocol is restricted, expecting header '{header}'"
            )

    def find(self, name: str, number: str) -> tuple[int, Version]:
        """Return a version that is ready: the one named, else the highest."""
        ready = self.repository.ready(name)
        if not number and ready:
            return max(ready.items())
        if number.isdigit() and int(number) in ready:
            return int(number), ready[int(number)]
        missing = (
            f"'{name}' version {number} is not found" if number else f"'{name}' has no available versions"
        )
        if not self.repository.knows(name):
            missing = f"'{name}' is not found"
        raise Refused(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: {missing}")


Request = TypeVar("Request")
Response = TypeVar("Response")


def _answered(
    call: Callable[[_Servicer, Request], Response],
) -> Callable[[_Servicer, Request, grpc.ServicerContext], Response]:
    """Wrap a call: the key is asked for, refusals become statuses."""

    def answer(self: _Servicer, request: Request, context: grpc.ServicerContext) -> Response:
        try:
            self.triton.admit(call.__name__, context)
            return call(self, request)
        except CrashError:
            self.triton.crash(context)
            context.abort(grpc.StatusCode.UNAVAILABLE, "the server has ended")
            raise
        except Refused as refused:
            context.abort(refused.code, str(refused))
            raise

    return answer


class _Servicer(service_pb2_grpc.GRPCInferenceServiceServicer):
    """The protocol's calls; names are the protocol's."""

    def __init__(self, triton: TritonDouble) -> None:
        self.triton = triton

    @_answered
    def ServerLive(self, request: Any) -> Any:  # noqa: N802
        return service_pb2.ServerLiveResponse(live=True)

    @_answered
    def ServerReady(self, request: Any) -> Any:  # noqa: N802
        return service_pb2.ServerReadyResponse(ready=True)

    @_answered
    def ServerMetadata(self, request: Any) -> Any:  # noqa: N802
        return service_pb2.ServerMetadataResponse(name=self.triton.identity, version="2.51.0")

    @_answered
    def ModelReady(self, request: Any) -> Any:  # noqa: N802
        try:
            self.triton.find(request.name, request.version)
        except Refused:
            return service_pb2.ModelReadyResponse(ready=False)
        return service_pb2.ModelReadyResponse(ready=True)

    @_answered
    def RepositoryIndex(self, request: Any) -> Any:  # noqa: N802
        response = service_pb2.RepositoryIndexResponse()
        for row in self.triton.repository.index():
            if row.state == "READY" or not request.ready:
                response.models.add(name=row.name, version=row.version, state=row.state, reason=row.reason)
        return response

    @_answered
    def RepositoryModelLoad(self, request: Any) -> Any:  # noqa: N802
        name = request.model_name
        self.triton.counts.loads[name] += 1
        override = request.parameters["config"].string_param if "config" in request.parameters else None
        try:
            self.triton.repository.load(name, override)
        except LoadError as error:
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error
        except PollError as error:
            text = f"failed to load '{name}', failed to poll from model repository"
            raise Refused(grpc.StatusCode.INTERNAL, text) from error
        return service_pb2.RepositoryModelLoadResponse()

    @_answered
    def RepositoryModelUnload(self, request: Any) -> Any:  # noqa: N802
        self.triton.counts.unloads[request.model_name] += 1
        self.triton.repository.unload(request.model_name)
        return service_pb2.RepositoryModelUnloadResponse()

    @_answered
    def ModelConfig(self, request: Any) -> Any:  # noqa: N802
        _, version = self.triton.find(request.name, request.version)
        return service_pb2.ModelConfigResponse(config=_completed(version.config, name=request.name))

    @_answered
    def ModelMetadata(self, request: Any) -> Any:  # noqa: N802
        _, version = self.triton.find(request.name, request.version)
        response = service_pb2.ModelMetadataResponse(name=request.name, platform="onnxruntime_onnx")
        response.versions.extend(str(number) for number in sorted(self.triton.repository.ready(request.name)))
        for described, tensors in (
            (response.inputs, version.config.input),
            (response.outputs, version.config.output),
        ):
            for tensor in tensors:
                described.add(name=tensor.name, datatype=datatype(tensor), shape=shape_of(version, tensor))
        return response

    @_answered
    def ModelStatistics(self, request: Any) -> Any:  # noqa: N802
        response = service_pb2.ModelStatisticsResponse()
        for number, version in sorted(self.triton.repository.ready(request.name).items()):
            response.model_stats.add(
                name=request.name,
                version=str(number),
                inference_count=sum(version.answered),
                execution_count=len(version.answered),
            )
        return response

    @_answered
    def ModelInfer(self, request: Any) -> Any:  # noqa: N802
        number, version = self.triton.find(request.model_name, request.model_version)
        self.triton.counts.infers[request.model_name] += 1
        names = [output.name for output in version.config.output]
        wanted = [output.name for output in request.outputs] or names
        answers = version.session.run(wanted, feeds(request, version))
        version.answered.append(request.inputs[0].shape[0] if request.inputs else 1)
        response = service_pb2.ModelInferResponse(
            id=request.id, model_name=request.model_name, model_version=str(number)
        )
        classes = {output.name: output.parameters["classification"].int64_param for output in request.outputs}
        for name, answer in zip(
            wanted, map(self._distorted(request.model_name, number), answers), strict=True
        ):
            labels = version.labels.get(name, ())
            add_output(response, version, name, classified(answer, classes.get(name, 0), labels))
        return response

    def _distorted(self, model: str, number: int) -> Callable[[np.ndarray], np.ndarray]:
        """Return what a fault makes of a version's answers."""
        faults, names = self.triton.faults, {model, f"{model}/{number}"}
        if names & faults.nan:
            return lambda answer: np.full_like(answer, np.nan)
        return np.negative if names & faults.opposite else np.asarray


def _completed(config: model_config_pb2.ModelConfig, *, name: str) -> model_config_pb2.ModelConfig:
    """Return the configuration with the defaults that the server fills in."""
    completed = model_config_pb2.ModelConfig()
    completed.CopyFrom(config)
    completed.name = name
    completed.default_model_filename = completed.default_model_filename or "model.onnx"
    if not completed.instance_group:
        completed.instance_group.add(kind=model_config_pb2.ModelInstanceGroup.KIND_CPU, count=1)
    for index, group in enumerate(completed.instance_group):
        group.name = group.name or f"{name}_{index}"
        group.count = group.count or 1
    return completed
