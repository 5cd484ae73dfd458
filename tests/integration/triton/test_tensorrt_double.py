"""The stand-in for Triton's TensorRT backend, in the real server: whole plans and damaged ones."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from tests.integration import real_triton
from tests.integration.triton.conftest import CONTROL
from tests.integration.triton.ground import Ground, Volume, a_config
from tests.onnx_models import write_multiply
from tritonclient.grpc import model_config_pb2

from engine_builder.codec import to_json
from engine_builder.contract import CompileOptions, Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not there")

A10 = Target("NVIDIA-A10", "8.6", 23028)
PREPARED, PLAN, KEY = "onnxruntime-0123456789abcdef", "tensorrt-0123456789abcdef", "0123456789abcdef" * 4
BATCH = 4


def make(volume: Volume, engine: str, command: str, *arguments: str) -> None:
    """Run one of the jobs that put an engine into the store."""
    common = (f"--repository={volume.root}", f"--engine={engine}", f"--key={KEY}", "--staging-uid=uid")
    command_line = (sys.executable, "-m", "engine_builder", command, *common, *arguments)
    done = subprocess.run(command_line, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def put_copy(volume: Volume, name: str, damage: Callable[[bytes], bytes]) -> str:
    """Put the engine into the store once more, with its plan changed."""
    entry = shutil.copytree(volume.root / "store" / PLAN, volume.root / "store" / name)
    plan = entry / "model.plan"
    plan.chmod(0o600)
    plan.write_bytes(damage(plan.read_bytes()))
    return name


def serve(volume: Volume, model: str, engine: str, *, batch: int = BATCH) -> None:
    """Put a model into the tree, configured as the operator does it where nothing else is asked for."""
    volume.link(model, 1, engine)
    config = a_config(model, [1], batch=batch)
    config.backend = "tensorrt"
    config.instance_group[0].kind = model_config_pb2.ModelInstanceGroup.KIND_AUTO
    volume.put_config(config)


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    if reason := real_triton.unavailable():
        pytest.skip(reason)
    workdir = tmp_path_factory.mktemp("tensorrt-double")
    volume = Volume(workdir / "volume")
    volume.root.mkdir()
    lay_out(volume, source=write_multiply(workdir / "source" / "model.onnx", 2.0))
    with real_triton.real_triton(volume.tree, workdir=workdir, control=CONTROL) as address:
        ground = Ground(address=address, volume=volume, control=CONTROL)
        yield ground
        ground.close()
    shutil.rmtree(workdir)


def lay_out(volume: Volume, *, source: Path) -> None:
    make(volume, PREPARED, "prepare", f"--source=pvc://claim/{source.name}", f"--source-root={source.parent}")
    options = to_json(CompileOptions(max_batch_size=BATCH))
    make(volume, PLAN, "compile", f"--from={PREPARED}", f"--options={options}", f"--target={to_json(A10)}")
    serve(volume, "good", PLAN)
    serve(volume, "cut", put_copy(volume, "cut", lambda plan: plan[:-1]))
    serve(volume, "foreign", put_copy(volume, "foreign", lambda plan: b"\0" * len(plan)))
    serve(volume, "other-version", put_copy(volume, "other", lambda plan: plan[:24] + b"\x09" + plan[25:]))
    serve(volume, "large-batch", PLAN, batch=BATCH + 1)


def test_plan_is_answered_by_the_model_behind_it(triton: Ground) -> None:
    assert triton.states("good") == {"1": "READY"}
    assert triton.infer("good")[1].tolist() == [[2.0] * 4]


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("cut", "not whole: its header says"),
        ("foreign", "no plan: it begins with 0000000000000000"),
        ("other-version", "of TensorRT 9."),
        ("large-batch", f"built for batches of at most {BATCH}, and max_batch_size is {BATCH + 1}"),
    ],
)
def test_plan_that_does_not_fit_is_refused_with_the_reason(triton: Ground, model: str, words: str) -> None:
    state, reason = triton.rows(model)["1"]
    assert state == "UNAVAILABLE"
    assert "unable to load plan file" in reason
    assert words in reason
