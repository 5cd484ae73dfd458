"""A Triton, real or double, with its repository on disk, and short words to talk to it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from concurrent import futures
from typing import TYPE_CHECKING

import grpc
import numpy as np
from google.protobuf import json_format, text_format
from tests.integration.eventually import eventually
from tests.onnx_models import SIZE, write_multiply
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FINGERPRINT = "triton-operator.io/config"
SLOW = ("slow", "slow-added", "slow-given-up", "slow-reloaded")
"""Models whose loads take a second: on the double by a fault, on the real server with `slow_config`."""


def a_config(
    name: str, versions: list[int], *, fingerprint: str = "aa", batch: int = 4
) -> model_config_pb2.ModelConfig:
    """Return a configuration for a `multiply` model, as the operator writes it."""
    config = model_config_pb2.ModelConfig(name=name, backend="onnxruntime", max_batch_size=batch)
    config.input.add(name="x", data_type=model_config_pb2.TYPE_FP32, dims=[SIZE])
    config.output.add(name="y", data_type=model_config_pb2.TYPE_FP32, dims=[SIZE])
    config.instance_group.add(kind=model_config_pb2.ModelInstanceGroup.KIND_CPU, count=1)
    config.version_policy.specific.SetInParent()  # without any version it selects none
    config.version_policy.specific.versions.extend(versions)
    config.parameters[FINGERPRINT].string_value = fingerprint
    return config


def slow_config(name: str, versions: list[int], *, fingerprint: str = "aa") -> model_config_pb2.ModelConfig:
    """Return a configuration whose many requests for warm-up make a load last."""
    config = a_config(name, versions, fingerprint=fingerprint)
    warmup = config.model_warmup.add(name="long", batch_size=1, count=4000)
    warmup.inputs["x"].data_type = model_config_pb2.TYPE_FP32
    warmup.inputs["x"].dims.append(SIZE)
    warmup.inputs["x"].zero_data = True
    return config


@dataclasses.dataclass(frozen=True)
class Volume:
    """A volume laid out as the keeper does it: a store, and one server's tree."""

    root: Path

    @property
    def tree(self) -> Path:
        return self.root / "servers/s/24.10"

    def put_engine(self, name: str, factor: float | None) -> None:
        """Write a store entry; without a factor one that no runtime can read."""
        directory = self.root / "store" / name
        directory.mkdir(parents=True)
        if factor is None:
            (directory / "model.onnx").write_bytes(b"this is not a model")
        else:
            write_multiply(directory / "model.onnx", factor)

    def put_config(self, config: model_config_pb2.ModelConfig) -> None:
        directory = self.tree / config.name
        directory.mkdir(parents=True, exist_ok=True)
        staged = self.root / f"{config.name}.pbtxt"
        staged.write_text(text_format.MessageToString(config))
        staged.replace(directory / "config.pbtxt")

    def link(self, model: str, number: int, engine: str) -> None:
        directory = self.tree / model
        directory.mkdir(parents=True, exist_ok=True)
        link = directory / str(number)
        link.unlink(missing_ok=True)
        link.symlink_to(f"../../../../store/{engine}")


class Ground:
    """One running server."""

    def __init__(self, *, address: str, volume: Volume, control: tuple[str, str]) -> None:
        self.volume = volume
        self.metadata = ((f"triton-grpc-protocol-{control[0]}", control[1]),)
        self._channel = grpc.insecure_channel(address)
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    def close(self) -> None:
        self._channel.close()

    def load(
        self, name: str, override: model_config_pb2.ModelConfig | None = None, *, timeout: float = 60
    ) -> None:
        request = service_pb2.RepositoryModelLoadRequest(model_name=name)
        if override is not None:
            content = json_format.MessageToDict(override, preserving_proto_field_name=True)
            request.parameters["config"].string_param = json.dumps(content)
        self.stub.RepositoryModelLoad(request, metadata=self.metadata, timeout=timeout)

    @contextlib.contextmanager
    def loading(self, name: str, override: model_config_pb2.ModelConfig | None = None) -> Iterator[None]:
        """Run the block while a load goes on, and wait for its end."""
        with futures.ThreadPoolExecutor(1) as pool:
            load = pool.submit(self.load, name, override)
            eventually(lambda: self.check_loading(name))
            yield
            load.result()

    def check_loading(self, name: str) -> None:
        """Fail unless a version of a model is loading."""
        assert "LOADING" in self.states(name).values()

    def unload(self, name: str) -> None:
        request = service_pb2.RepositoryModelUnloadRequest(model_name=name)
        self.stub.RepositoryModelUnload(request, metadata=self.metadata, timeout=30)

    def rows(self, name: str) -> dict[str, tuple[str, str]]:
        """Return version → (state, reason) of one model in the index."""
        index = self.stub.RepositoryIndex(
            service_pb2.RepositoryIndexRequest(), metadata=self.metadata, timeout=30
        )
        return {row.version: (row.state, row.reason) for row in index.models if row.name == name}

    def states(self, name: str) -> dict[str, str]:
        return {version: state for version, (state, _) in self.rows(name).items()}

    def settled(self, name: str) -> dict[str, str]:
        """Return the states once nothing is unloading any more."""
        deadline = time.monotonic() + 10
        while "UNLOADING" in (states := self.states(name)).values():
            assert time.monotonic() < deadline, f"{name} is unloading for ever: {states}"
            time.sleep(0.02)
        return states

    def is_ready(self, name: str, version: int | None = None) -> bool:
        request = service_pb2.ModelReadyRequest(name=name, version=str(version or ""))
        return bool(self.stub.ModelReady(request, timeout=30).ready)

    def config(self, name: str) -> model_config_pb2.ModelConfig:
        request = service_pb2.ModelConfigRequest(name=name)
        return self.stub.ModelConfig(request, metadata=self.metadata, timeout=30).config

    def fingerprint(self, name: str) -> str:
        return self.config(name).parameters[FINGERPRINT].string_value

    def infer(
        self, name: str, version: int | None = None, *, values: np.ndarray | None = None
    ) -> tuple[int, np.ndarray]:
        """Return the version that answered, and its answer."""
        values = np.ones((1, SIZE), dtype=np.float32) if values is None else values
        request = service_pb2.ModelInferRequest(model_name=name, model_version=str(version or ""))
        request.inputs.add(name="x", datatype="FP32", shape=values.shape)
        request.raw_input_contents.append(values.tobytes())
        response = self.stub.ModelInfer(request, timeout=30)
        answer = np.frombuffer(response.raw_output_contents[0], dtype=np.float32)
        return int(response.model_version), answer.reshape(tuple(response.outputs[0].shape))

    def use(self, name: str, version: int | None = None) -> None:
        """Ask a model, and wait until Triton has counted that."""
        before = sum(self.inferences(name).values())
        self.infer(name, version)
        eventually(lambda: self._has_counted_more(name, before))

    def _has_counted_more(self, name: str, before: int) -> None:
        """Triton counts a request a moment after it was answered."""
        assert sum(self.inferences(name).values()) > before

    def inferences(self, name: str) -> dict[str, int]:
        """Return version → rows answered since that version was loaded."""
        request = service_pb2.ModelStatisticsRequest(name=name)
        statistics = self.stub.ModelStatistics(request, timeout=30).model_stats
        return {each.version: each.inference_count for each in statistics}
