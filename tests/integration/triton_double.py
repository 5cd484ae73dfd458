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
from tests.integration.triton_repository import Faults, LoadError, PollError, Repository, Version
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor, triton_to_np_dtype

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RESTRICTED = frozenset({"RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload", "ModelConfig"})
CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


class Refused(Exception):
    """A call that ends with a status other than OK."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclasses.dataclass
class Counts:
    """Calls that came in, by model: what a test counts to see that nothing was repeated."""

    loads: Counter[str] = dataclasses.field(default_factory=Counter)
    unloads: Counter[str] = dataclasses.field(default_factory=Counter)
    infers: Counter[str] = dataclasses.field(default_factory=Counter)


class TritonDouble:
    """One server on one address; `control` is header and key of the restricted protocols."""

    def __init__(self, directory: Path, *, address: str, control: tuple[str, str] | None = None) -> None:
        self.address = address
        self.faults = Faults()
        self.counts = Counts()
        self.repository = Repository(directory, self.faults)
        self._control = control
        self._server: grpc.Server | None = None

    def start(self) -> None:
        """Load what lies on disk, then open the port, as the real server does."""
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

    def stop(self) -> None:
        """Close the port; calls in flight are cut."""
        if self._server:
            self._server.stop(grace=0).wait()
            self._server = None

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
        return service_pb2.ServerMetadataResponse(name="triton", version="2.51.0")

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
                described.add(name=tensor.name, datatype=_datatype(tensor), shape=_shape(version, tensor))
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
        answers = version.session.run(None, _feeds(request, version))
        response = service_pb2.ModelInferResponse(
            id=request.id, model_name=request.model_name, model_version=str(number)
        )
        version.answered.append(request.inputs[0].shape[0] if request.inputs else 1)
        broken = request.model_name in self.triton.faults.nan
        for output, answer in zip(version.session.get_outputs(), answers, strict=True):
            values = np.full_like(answer, np.nan) if broken else answer
            datatype = _output_datatype(version, output.name)
            response.outputs.add(name=output.name, datatype=datatype, shape=answer.shape)
            response.raw_output_contents.append(_raw(values))
        return response


def _feeds(request: Any, version: Version) -> dict[str, np.ndarray]:
    expected = {tensor.name: tensor for tensor in version.config.input}
    feeds: dict[str, np.ndarray] = {}
    for position, given in enumerate(request.inputs):
        name = request.model_name
        if given.name not in expected:
            raise _invalid(f"unexpected inference input '{given.name}' for model '{name}'")
        tensor = expected[given.name]
        if given.datatype != _datatype(tensor):
            data = f"data-type is '{given.datatype}', but model '{name}' expects '{_datatype(tensor)}'"
            raise _invalid(f"inference input '{given.name}' {data}")
        _check_shape(list(given.shape), name=name, version=version, tensor=tensor)
        feeds[given.name] = _array(request, given, position=position)
    return feeds


def _check_shape(given: list[int], *, name: str, version: Version, tensor: Any) -> None:
    wanted = _shape(version, tensor)
    limit = version.config.max_batch_size
    fits = len(given) == len(wanted) and all(w in (-1, g) for g, w in zip(given, wanted, strict=True))
    if not fits:
        expected, got = (str(shape).replace(" ", "") for shape in (wanted, given))
        text = (
            f"unexpected shape for input '{tensor.name}' for model '{name}'. Expected {expected}, got {got}."
        )
        raise _invalid(text)
    if limit and given[0] > limit:
        raise _invalid(f"inference request batch-size must be <= {limit} for '{name}'")


def _array(request: Any, given: Any, *, position: int) -> np.ndarray:
    shape = tuple(given.shape)
    if request.raw_input_contents:
        raw = request.raw_input_contents[position]
        if given.datatype == "BYTES":
            return deserialize_bytes_tensor(raw).reshape(shape)
        return np.frombuffer(raw, dtype=triton_to_np_dtype(given.datatype)).reshape(shape)
    values = list(getattr(given.contents, CONTENTS[given.datatype]))
    return np.array(values, dtype=triton_to_np_dtype(given.datatype)).reshape(shape)


def _raw(values: np.ndarray) -> bytes:
    if values.dtype == np.object_:
        return bytes(serialize_byte_tensor(values).item())
    return np.ascontiguousarray(values).tobytes()


def _invalid(text: str) -> Refused:
    return Refused(grpc.StatusCode.INVALID_ARGUMENT, text)


def _datatype(tensor: Any) -> str:
    name = model_config_pb2.DataType.Name(tensor.data_type).removeprefix("TYPE_")
    return "BYTES" if name == "STRING" else name


def _output_datatype(version: Version, name: str) -> str:
    return next(_datatype(tensor) for tensor in version.config.output if tensor.name == name)


def _shape(version: Version, tensor: Any) -> list[int]:
    return [-1, *tensor.dims] if version.config.max_batch_size else list(tensor.dims)


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
