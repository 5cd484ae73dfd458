"""The image's OpenVINO backend under the real Triton serves what a convert Job writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import numpy as np
import pytest
from tests.integration import real_triton
from tests.integration.triton.conftest import CONTROL
from tests.integration.triton.ground import Ground, Volume, a_config
from tests.onnx_models import SIZE

from engine_builder.compilers import openvino
from engine_builder.contract import Signature, Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tritonclient.grpc import model_config_pb2

SIGNATURE = Signature(inputs=(Tensor("x", "FP32", (-1, SIZE)),), outputs=(Tensor("y", "FP32", (-1, SIZE)),))


def config(name: str, *, batch: int, wide: int = SIZE) -> model_config_pb2.ModelConfig:
    """Return what the operator writes: with a free batch, or with a largest one."""
    found = a_config(name, [1], batch=batch)
    found.backend = "openvino"
    for tensor in (*found.input, *found.output):
        tensor.dims[:] = [wide] if batch else [-1, wide]
    return found


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    if reason := real_triton.unavailable():
        pytest.skip(reason)
    workdir = tmp_path_factory.mktemp("openvino")
    volume = Volume(workdir / "volume")
    volume.put_engine("twice", 2.0)
    entry = volume.root / "store" / "twice"
    openvino.convert(entry / "model.onnx", entry / "model.xml", SIGNATURE)
    for found in (config("free", batch=0), config("batched", batch=4), config("wrong", batch=0, wide=9)):
        volume.link(found.name, 1, "twice")
        volume.put_config(found)
    with real_triton.real_triton(volume.tree, workdir=workdir, control=CONTROL) as address:
        ground = Ground(address=address, volume=volume, control=CONTROL)
        yield ground
        ground.close()


@pytest.mark.parametrize("name", ["free", "batched"])
@pytest.mark.parametrize("rows", [1, 3])
def test_batches_are_answered(triton: Ground, name: str, rows: int) -> None:
    values = np.arange(rows * SIZE, dtype=np.float32).reshape(rows, SIZE)
    _, answer = triton.infer(name, values=values)
    np.testing.assert_array_equal(answer, values * 2)


def test_a_batch_beyond_the_largest_is_refused(triton: Ground) -> None:
    with pytest.raises(grpc.RpcError, match="batch-size must be <= 4"):
        triton.infer("batched", values=np.ones((5, SIZE), dtype=np.float32))


def test_a_configuration_that_does_not_fit_is_refused_with_both_sides(triton: Ground) -> None:
    ((state, reason),) = triton.rows("wrong").values()
    assert state == "UNAVAILABLE"
    assert "dims [-1, 4] in the model and [-1, 9]" in reason
