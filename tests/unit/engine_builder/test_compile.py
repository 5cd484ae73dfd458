"""The compile job with a real compiler: TensorRT for RTX builds without a GPU.

Every build is a command of its own, as in a pod.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from onnx import TensorProto, helper
from tests.unit.engine_builder.models import KEY, a_constant, a_model, external_tensor, value
from tests.unit.engine_builder.onnx_for_tensorrt import (
    PREPARED,
    a_deep_model,
    a_matmul,
    a_model_that_grows,
    a_prepared,
    a_quantised_matmul,
    a_relu,
    a_reshape,
    an_fp8_matmul,
    an_image_model,
    weights,
)

from engine_builder import store
from engine_builder.compile import COMPILING
from engine_builder.compilers import api, builder, monitor, plan_header
from engine_builder.compilers.task import Task
from engine_builder.contract import (
    CompileOptions,
    Portability,
    ProfileInput,
    Reason,
    Report,
    Target,
    Tensor,
    from_json,
    to_json,
)
from engine_builder.errors import JobError
from engine_builder.progress import Progress

if TYPE_CHECKING:
    import onnx

    from engine_builder.volume import Layout

ENGINE = "tensorrt-0123456789abcdef"
T4, A10, L4 = Target("Tesla-T4", "7.5"), Target("NVIDIA-A10", "8.6", 23028), Target("NVIDIA-L4", "8.9", 23034)
MASKS = {"7.5": 1, "8.6": 4, "8.9": 8}
"""Compute capabilities as a plan of TensorRT for RTX holds them, at offset 32."""


def _command(layout: Layout, target: Target, options: CompileOptions, *further: str) -> list[str]:
    log = layout.root.parent / "termination-log"
    return [
        *(sys.executable, "-m", "engine_builder", "compile", "--repository", str(layout.root)),
        *("--engine", ENGINE, "--key", KEY, "--from", PREPARED, "--staging-uid", "uid-1"),
        *("--options", to_json(options), "--target", to_json(target), "--termination-log", str(log)),
        *("--compiler", "tensorrt_rtx", *further),
    ]


def _compile(
    layout: Layout, target: Target, options: CompileOptions | None = None, *further: str
) -> tuple[Report, str]:
    """Run the job; returns its report and what it printed."""
    command = _command(layout, target, options or CompileOptions(max_batch_size=8), *further)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    report = from_json(Report, (layout.root.parent / "termination-log").read_text())
    assert done.returncode == report.exit_code, done.stderr
    assert "Traceback" not in report.message
    assert list(layout.staging.iterdir()) == [], "the attempt left something"
    return report, done.stdout


def _refused(layout: Layout, target: Target, options: CompileOptions | None = None) -> Report:
    report, _ = _compile(layout, target, options)
    assert report.exit_code != 0
    assert store.list_engines(layout) == [PREPARED]
    return report


# What is built.


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (TensorProto.FLOAT, A10),
        (TensorProto.FLOAT, L4),
        (TensorProto.FLOAT16, T4),
        (TensorProto.FLOAT16, A10),
        (TensorProto.FLOAT16, L4),
    ],
)
def test_a_prepared_engine_becomes_a_plan_for_its_target(layout: Layout, kind: int, target: Target) -> None:
    prepared = a_prepared(layout, a_matmul(kind))
    report, _ = _compile(layout, target, CompileOptions(max_batch_size=8))
    assert report.reason is Reason.SUCCEEDED, report.message
    assert report.signature == prepared.signature
    plan = (layout.store / ENGINE / "model.plan").read_bytes()
    header = plan_header.read(plan[:64])
    assert (header.size, plan[32]) == (len(plan), MASKS[target.compute_capability])
    manifest = store.read_manifest(layout, ENGINE)
    assert manifest is not None
    assert store.damaged_files(layout, manifest) == []
    assert set(manifest.files) == {"model.plan", "report.json", "reference.npz"}
    assert (manifest.prepared, manifest.target) == (PREPARED, target)
    assert manifest.tensorrt == header.version_text
    assert (manifest.source_sha256, manifest.sample_shapes) == (
        prepared.source_sha256,
        prepared.sample_shapes,
    )


def test_the_report_tells_how_it_was_built(layout: Layout) -> None:
    a_prepared(layout, a_matmul())
    report, printed = _compile(layout, A10)
    full = json.loads((layout.store / ENGINE / "report.json").read_text())
    assert full["from"] == PREPARED
    assert full["compiler"]["module"] == "tensorrt_rtx"
    assert full["profiles"] == [
        [{"input": "x", "min": [1, 4], "opt": [8, 4], "max": [8, 4], "values": False}]
    ]
    assert full["workspace_bytes"] == 23028 * 2**20 * 70 // 100
    assert full["plan"]["bytes"] == (layout.store / ENGINE / "model.plan").stat().st_size
    assert set(report.seconds) >= {"import", "start", "parse", "build", "store"}
    assert 0 < report.compiler_seconds == full["compiler_seconds"]
    assert report.compiler_seconds <= sum(report.seconds.values())
    assert printed.splitlines()[-1].startswith(f"Succeeded: compiled {PREPARED} for NVIDIA-A10 of compute")


def test_the_reference_answers_are_those_of_the_prepared_engine(layout: Layout) -> None:
    a_prepared(layout, a_matmul())
    _compile(layout, A10)
    ours, theirs = (layout.store / name / "reference.npz" for name in (ENGINE, PREPARED))
    assert ours.read_bytes() == theirs.read_bytes()
    assert ours.stat().st_ino == theirs.stat().st_ino, "the volume has links: no second copy"


def test_the_same_build_gives_the_same_plan(layout: Layout) -> None:
    a_prepared(layout, a_matmul())
    plans = set()
    for _ in range(2):
        _compile(layout, A10)
        plans.add((layout.store / ENGINE / "model.plan").read_bytes())
        shutil.rmtree(layout.store / ENGINE)
    assert len(plans) == 1


def test_a_second_attempt_finds_the_engine_and_starts_no_compiler(layout: Layout) -> None:
    a_prepared(layout, a_matmul())
    _compile(layout, A10)
    shutil.rmtree(layout.store / PREPARED)
    report, _ = _compile(layout, A10)
    assert (report.message, report.compiler_seconds) == ("the engine was in the store already", 0.0)


@pytest.mark.parametrize(
    ("model", "target", "options"),
    [
        (a_quantised_matmul(), A10, CompileOptions(precision="INT8")),
        (a_quantised_matmul(), L4, CompileOptions(precision="INT8")),
        (an_fp8_matmul(), L4, CompileOptions(precision="FP8")),
        (a_matmul(), A10, CompileOptions(max_batch_size=4, precision="TF32", optimization_level=0)),
        (
            an_image_model(),
            A10,
            CompileOptions(
                profiles=tuple(
                    (ProfileInput("images", (1, 3, 8, 8), (n, 3, 16, 16), (n, 3, 32, 32)),) for n in (2, 4)
                )
            ),
        ),
        (
            a_reshape(),
            A10,
            CompileOptions(profiles=((ProfileInput("sizes", (1, 1), (2, 4), (8, 8)),),)),
        ),
    ],
    ids=["int8", "int8-89", "fp8-89", "tf32", "two profiles", "values"],
)
def test_other_kinds_of_models_are_built(
    layout: Layout, model: onnx.ModelProto, target: Target, options: CompileOptions
) -> None:
    a_prepared(layout, model)
    report, _ = _compile(layout, target, options)
    assert report.reason is Reason.SUCCEEDED, report.message


def test_a_type_that_tensorrt_changes_is_told_and_stands_in_the_signature(layout: Layout) -> None:
    a_prepared(layout, a_relu(TensorProto.DOUBLE))
    report, _ = _compile(layout, A10)
    assert report.signature is not None
    assert report.signature.inputs == (Tensor("x", "FP32", (1, 4)),)
    assert "'x' is FP64 in the model and FP32 in the plan" in report.message


def test_external_data_is_read_from_the_store(layout: Layout) -> None:
    model = a_model(
        [helper.make_node("Add", ["x", "w"], ["y"])], initializers=[external_tensor("w", "weights.bin")]
    )
    a_prepared(layout, model, **{"weights.bin": weights(4).tobytes()})
    report, _ = _compile(layout, A10)
    assert report.reason is Reason.SUCCEEDED, report.message


# What is refused.


def _damaged() -> Any:
    return a_model([helper.make_node("Add", ["x", "nowhere"], ["y"], name="add")])


def _clash() -> Any:
    return a_model(
        [helper.make_node("Add", ["x", "w"], ["y"], name="add")], initializers=[a_constant("w", weights(3))]
    )


def _custom() -> Any:
    node = helper.make_node("FancyOp", ["x"], ["y"], name="fancy0", domain="acme")
    return a_model([node], opsets=[("", 17), ("acme", 1)])


def _unsupported() -> Any:
    nodes = [
        helper.make_node("Det", ["x"], ["d"], name="det0"),
        helper.make_node("Unique", ["d"], ["y"], name="unique0"),
    ]
    return a_model(nodes, inputs=[value("x", shape=(2, 4, 4))], outputs=[value("y", shape=("n",))])


@pytest.mark.parametrize(
    ("model", "target", "reason", "words"),
    [
        (_custom(), A10, Reason.UNSUPPORTED_OPERATOR, ["no operator FancyOp (node 'fancy0')"]),
        (_unsupported(), A10, Reason.UNSUPPORTED_OPERATOR, ["Det", "'det0'", "same holds for Unique"]),
        (_damaged(), A10, Reason.INVALID_MODEL, ["node 'add'", "Node input was not registered"]),
        (_clash(), A10, Reason.INVALID_MODEL, ["node 'add' (Add)", "broadcast dimensions"]),
        (a_quantised_matmul(zero_point=3), A10, Reason.UNSUPPORTED_PRECISION, ["'x_q'", "zero point"]),
        (a_quantised_matmul(bias=True), A10, Reason.UNSUPPORTED_PRECISION, ["'b_dq'", "bias"]),
        (a_matmul(), T4, Reason.UNSUPPORTED_PRECISION, ["'fc'", "Turing (SM75)", "FP32 GEMM"]),
        (
            a_relu(TensorProto.BFLOAT16, opsets=(("", 22),), ir_version=10),
            T4,
            Reason.UNSUPPORTED_PRECISION,
            ["has no b16"],
        ),
        (an_fp8_matmul(), A10, Reason.UNSUPPORTED_PRECISION, ["has no fp8_e4m3"]),
        (a_matmul(), Target("H100", "9.0"), Reason.UNSUPPORTED_TARGET, ["9.0", "7.5, 8.0, 8.6, 8.9, 12.0"]),
        (a_matmul(), Target("", "6.1"), Reason.UNSUPPORTED_TARGET, ["6.1"]),
    ],
    ids=lambda given: given.value if isinstance(given, Reason) else "",
)
def test_what_tensorrt_refuses_has_a_reason_and_a_remedy(
    layout: Layout, model: Any, target: Target, reason: Reason, words: list[str]
) -> None:
    a_prepared(layout, model)
    report = _refused(layout, target)
    assert (report.reason, report.exit_code) == (reason, 10)
    for word in words:
        assert word in report.message
    assert "cudaError" not in report.message


@pytest.mark.parametrize("content", [b"", b"hello world\n", a_matmul().SerializeToString()[:60]])
def test_what_is_no_model_is_refused_though_tensorrt_takes_some_of_it(layout: Layout, content: bytes) -> None:
    a_prepared(layout, a_matmul(), content=content)
    assert _refused(layout, A10).reason is Reason.INVALID_MODEL


@pytest.mark.parametrize("extra", [{}, {"weights.bin": b"1234"}], ids=["missing", "short"])
def test_external_data_that_lacks_is_named(layout: Layout, extra: dict[str, bytes]) -> None:
    model = a_model(
        [helper.make_node("Add", ["x", "w"], ["y"])], initializers=[external_tensor("w", "weights.bin")]
    )
    a_prepared(layout, model, **extra)
    report = _refused(layout, A10)
    assert report.reason is Reason.INVALID_MODEL
    assert "weights.bin is missing or too short" in report.message


@pytest.mark.parametrize(
    ("model", "options", "reason"),
    [
        (an_image_model(), CompileOptions(max_batch_size=4), Reason.PROFILE_MISSING),
        (a_reshape(), CompileOptions(max_batch_size=4), Reason.PROFILE_MISSING),
        (
            a_matmul(),
            CompileOptions(profiles=((ProfileInput("z", (1, 4), (1, 4), (1, 4)),),)),
            Reason.INVALID_PROFILE,
        ),
        (
            a_matmul(),
            CompileOptions(max_batch_size=4, profiles=((ProfileInput("x", (1, 4), (2, 4), (8, 4)),),)),
            Reason.BATCH_TOO_LARGE,
        ),
        (
            a_matmul(),
            CompileOptions(portability=Portability.AMPERE_PLUS, max_batch_size=4),
            Reason.UNSUPPORTED_OPTION,
        ),
        (
            a_matmul(),
            dataclasses.replace(CompileOptions(max_batch_size=4), workspace_percent=1),
            Reason.BUILDER_OUT_OF_MEMORY,
        ),
    ],
)
def test_options_that_cannot_be_are_refused(
    layout: Layout, model: Any, options: CompileOptions, reason: Reason
) -> None:
    a_prepared(layout, model)
    target = dataclasses.replace(A10, memory_mib=1) if reason is Reason.BUILDER_OUT_OF_MEMORY else A10
    assert _refused(layout, target, options).reason is reason


def test_a_prepared_engine_that_has_gone_is_waited_for(layout: Layout) -> None:
    report, _ = _compile(layout, A10)
    assert (report.reason, report.exit_code) == (Reason.ENGINE_MISSING, 20)


def test_an_image_without_tensorrt_says_which_image_it_should_be(layout: Layout) -> None:
    a_prepared(layout, a_matmul())
    command = _command(layout, A10, CompileOptions(max_batch_size=8))
    command[command.index("tensorrt_rtx")] = "tensorrt"
    subprocess.run(command, capture_output=True, check=False, timeout=60)
    report = from_json(Report, (layout.root.parent / "termination-log").read_text())
    assert (report.reason, report.exit_code) == (Reason.COMPILER_MISSING, 20)
    assert "spec.compilerImage" in report.message


# What goes wrong on the way.


def test_a_volume_without_room_is_told_before_the_build(small_volume: Layout) -> None:
    model = a_matmul(size=700)
    a_prepared(small_volume, model)
    (small_volume.root / "filler").write_bytes(b"x" * (1 << 20))
    report = _refused(small_volume, A10)
    assert (report.reason, report.exit_code) == (Reason.VOLUME_FULL, 20)
    assert "are needed" in report.message


def test_a_volume_that_fills_up_in_the_middle_is_the_same(small_volume: Layout) -> None:
    """The model is smaller than the plan."""
    a_prepared(small_volume, a_model_that_grows())
    free = small_volume.free()
    (small_volume.root / "filler").write_bytes(b"x" * (free - (1 << 20) - (64 << 10)))
    report = _refused(small_volume, A10)
    assert (report.reason, report.exit_code) == (Reason.VOLUME_FULL, 20)


@pytest.fixture
def slow_build(layout: Layout) -> Iterator[subprocess.Popen[str]]:
    """Return a job in the middle of a build that takes seconds."""
    a_prepared(layout, a_deep_model())
    command = _command(layout, A10, CompileOptions(max_batch_size=8))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("progress "):
                break
        yield process
        process.kill()


def test_progress_is_in_the_log_and_on_the_volume(layout: Layout, slow_build: subprocess.Popen[str]) -> None:
    assert slow_build.poll() is None
    percent = int((layout.staging / "uid-1/progress").read_text())
    assert 0 <= percent <= 99


def test_a_build_that_is_told_to_stop_stops_and_leaves_nothing(
    layout: Layout, slow_build: subprocess.Popen[str]
) -> None:
    slow_build.send_signal(signal.SIGTERM)
    assert slow_build.wait(timeout=30) == 20
    report = from_json(Report, (layout.root.parent / "termination-log").read_text())
    assert report.reason is Reason.CANCELLED
    assert list(layout.staging.iterdir()) == []
    assert store.list_engines(layout) == [PREPARED]


def test_tensorrt_stops_at_its_next_step_when_it_is_asked_to(layout: Layout) -> None:
    prepared, place = a_prepared(layout, a_deep_model()), layout.staging / "uid-1"
    place.mkdir()
    task = Task(
        repository=layout.root,
        model=layout.store / PREPARED / "model.onnx",
        place=place,
        signature=prepared.signature,
        options=CompileOptions(),
        target=A10,
    )

    def stopped() -> object:
        stop = monitor.Stop()
        stop.requested = True
        quiet = Progress(quiet=True)
        return builder.Compiler(api.load("tensorrt_rtx"), task, found=None, progress=quiet, stop=stop).run()

    began = time.monotonic()
    with pytest.raises(JobError, match="Cancelled") as caught:
        COMPILING.run(stopped)
    assert "starts afresh" in caught.value.message
    assert not (place / "progress").exists()
    assert time.monotonic() - began < 10


def test_a_compiler_that_the_kernel_kills_is_told_as_out_of_memory(
    layout: Layout, slow_build: subprocess.Popen[str]
) -> None:
    (child,) = _children(slow_build.pid)
    os.kill(child, signal.SIGKILL)
    assert slow_build.wait(timeout=30) == 20
    report = from_json(Report, (layout.root.parent / "termination-log").read_text())
    assert report.reason is Reason.OOM_KILLED
    assert "spec.builds.resources" in report.message
    assert list(layout.staging.iterdir()) == []


def test_a_compiler_that_crashes_is_told_and_its_timings_are_thrown_away(
    layout: Layout, slow_build: subprocess.Popen[str]
) -> None:
    timings = layout.timing_caches / "10.9.0.34/NVIDIA-A10-8.6.timing"
    timings.parent.mkdir(parents=True)
    timings.write_bytes(b"?")
    (child,) = _children(slow_build.pid)
    os.kill(child, signal.SIGSEGV)
    assert slow_build.wait(timeout=30) == 10
    report = from_json(Report, (layout.root.parent / "termination-log").read_text())
    assert report.reason is Reason.COMPILER_CRASHED
    assert "SIGSEGV" in report.message
    assert not timings.exists()


def test_a_build_beyond_its_deadline_ends(layout: Layout) -> None:
    a_prepared(layout, a_deep_model())
    report, _ = _compile(layout, A10, CompileOptions(max_batch_size=8), "--timeout-seconds", "1.0")
    assert (report.reason, report.exit_code) == (Reason.DEADLINE_EXCEEDED, 20)
    assert "builds.timeoutSeconds" in report.message


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_child_that_does_not_heed_the_signal_is_killed() -> None:
    def deaf() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(60)

    began = time.monotonic()
    with pytest.raises(JobError) as caught:
        dataclasses.replace(COMPILING, timeout_seconds=0.1, stop_seconds=0.2).run(deaf)
    assert caught.value.reason is Reason.DEADLINE_EXCEEDED
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "wrong",
    [
        ["--target", '{"product": "", "compute_capability": "86"}'],
        ["--target", "8.6"],
        ["--options", '{"workspace_percent": 0}'],
        ["--options", '{"optimization_level": 6}'],
        ["--options", '{"portability": "Everywhere"}'],
        ["--options", '{"profiles": [[{"name": "x"}]]}'],
        ["--compiler", "nvcc"],
        ["--timeout-seconds", "0"],
    ],
)
def test_a_wrong_command_line_is_2(layout: Layout, wrong: list[str]) -> None:
    command = [*_command(layout, A10, CompileOptions()), *wrong]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
