from __future__ import annotations

import faulthandler
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from tests.unit.engine_builder.models import (
    ENGINE,
    KEY,
    LIGHT,
    a_constant,
    a_model,
    saved,
    saved_with_external_data,
    value,
)

from engine_builder import job, names, store
from engine_builder.contract import Reason, Report, from_json
from engine_builder.errors import JobError
from engine_builder.isolation import isolated
from engine_builder.progress import Progress

if TYPE_CHECKING:
    from engine_builder.volume import Layout


# The command line, in processes of its own.


def _run(*arguments: object, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "engine_builder", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, **kwargs)


def _arguments(layout: Layout, source: object, root: Path, log: Path) -> list[object]:
    return [
        *("prepare", "--repository", layout.root, "--engine", ENGINE, "--key", KEY, "--source", source),
        *("--source-root", root, "--staging-uid", "uid-1", "--termination-log", log),
    ]


def test_the_command_prepares_from_a_claim_and_says_what_it_does(layout: Layout, tmp_path: Path) -> None:
    log = tmp_path / "log"
    result = _run(*_arguments(layout, "pvc://models/light_resnet50.onnx", LIGHT, log))
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert "MB/s" in lines[0]
    assert any(line.startswith("reference: ") for line in lines)
    assert lines[-1].startswith("Succeeded: prepared light_resnet50.onnx")
    report = from_json(Report, log.read_text())
    assert report.sha256 == _run("digest", LIGHT / "light_resnet50.onnx").stdout.strip()
    assert _run("verify", "--repository", layout.root).stdout == f"{ENGINE}: whole\n"
    (layout.store / ENGINE / "model.onnx").write_bytes(b"?")
    assert _run("verify", "--repository", layout.root).returncode == 10


def test_resolve_gives_digest_and_size_and_writes_nowhere(tmp_path: Path) -> None:
    path = saved_with_external_data(tmp_path / "m")
    before = sorted(path.parent.iterdir())
    log = tmp_path / "log"
    result = _run(
        "resolve",
        "--source",
        "pvc://claim/m",
        "--source-root",
        tmp_path,
        "--termination-log",
        log,
        cwd=tmp_path,
    )
    report = from_json(Report, log.read_text())
    assert result.returncode == 0
    assert names.is_digest(report.sha256)
    assert report.size_bytes == sum(p.stat().st_size for p in before)
    assert sorted(path.parent.iterdir()) == before


def test_the_command_answers_samples_in_a_child_process(layout: Layout, tmp_path: Path) -> None:
    assert (
        _run(*_arguments(layout, "pvc://models/light_resnet50.onnx", LIGHT, tmp_path / "log")).returncode == 0
    )
    np.savez(tmp_path / "s.npz", **{"gpu_0/data_0": np.ones((1, 3, 224, 224), np.float32)})
    arguments = [
        *("reference", "--repository", layout.root, "--engine", ENGINE, "--entry", "samples-1", "--key", KEY),
        *("--source", "pvc://tests/s.npz", "--source-root", tmp_path, "--staging-uid", "uid-1"),
    ]
    result = _run(*arguments, "--termination-log", tmp_path / "log")
    report = from_json(Report, (tmp_path / "log").read_text())
    assert (result.returncode, report.message, report.engine) == (0, "1 of 1 samples answered", "samples-1")
    assert "samples-1: whole" in _run("verify", "--repository", layout.root).stdout
    assert list(layout.staging.iterdir()) == []


def test_a_termination_log_that_cannot_be_written_is_not_fatal(tmp_path: Path) -> None:
    path = saved(a_model(), tmp_path / "m.onnx")
    result = _run("resolve", "--source", path, "--termination-log", tmp_path / "missing/log")
    assert result.returncode == 0
    assert "cannot be written" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["prepare"],
        ["prepare", "--key", "short"],
        ["reference", "--entry", "../x"],
        ["keeper", "--repository", "/r", "--cluster", "c", "--namespace", "n", "--claim-uid", "u"],
        ["keeper", "--listen", "nowhere"],
    ],
)
def test_a_wrong_command_line_is_2(arguments: list[str]) -> None:
    result = _run(*arguments, env={**os.environ, "KEEPER_KEY": "not hex"})
    assert result.returncode == 2
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "command",
    [[], ["prepare"], ["compile"], ["resolve"], ["reference"], ["digest"], ["keeper"], ["verify"]],
)
def test_help_helps(command: list[str]) -> None:
    result = _run(*command, "--help")
    assert result.returncode == 0
    assert len(result.stdout.splitlines()) > 5


def test_a_job_told_to_stop_cleans_up_and_says_cancelled(layout: Layout, tmp_path: Path) -> None:
    """The model loops for longer than anybody waits, in native code that sees no signal."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["d"]), helper.make_node("MatMul", ["v"] * 2, ["w"])],
        "body",
        [value("i", TensorProto.INT64, ()), value("c", TensorProto.BOOL, ()), value("v", shape=(64, 64))],
        [value("d", TensorProto.BOOL, ()), value("w", shape=(64, 64))],
    )
    model = a_model(
        [helper.make_node("Loop", ["n", "t", "x"], ["y"], body=body)],
        inputs=[value("x", shape=(64, 64))],
        outputs=[value("y", shape=(64, 64))],
        initializers=[a_constant("n", np.int64(10**15)), a_constant("t", np.bool_(True))],
    )
    saved(model, tmp_path / "m.onnx")
    log = tmp_path / "log"
    command = [
        sys.executable,
        "-m",
        "engine_builder",
        *map(str, _arguments(layout, "pvc://c/m.onnx", tmp_path, log)),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("load: "):
                break
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 20
    assert from_json(Report, log.read_text()).reason is Reason.CANCELLED
    assert list(layout.staging.iterdir()) == []
    assert store.list_engines(layout) == []


def test_cleaning_up_is_not_interrupted_by_a_second_signal() -> None:
    cleaned = []

    def work() -> Report:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
            cleaned.append(True)
        return Report(Reason.SUCCEEDED)

    before = signal.getsignal(signal.SIGTERM)
    code = job.run_job(work, engine="e", progress=Progress(quiet=True), termination_log=None)
    assert (code, cleaned) == (20, [True])
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    ("ending", "reason"),
    [("SIGSEGV", Reason.INVALID_MODEL), ("SIGKILL", Reason.INTERNAL_ERROR), ("exit", Reason.INTERNAL_ERROR)],
)
def test_a_crash_in_native_code_is_reported_by_the_job(ending: str, reason: Reason) -> None:
    def crash() -> None:
        faulthandler.disable()
        if ending == "exit":
            os._exit(3)
        os.kill(os.getpid(), getattr(signal, ending))

    with pytest.raises(JobError) as caught:
        isolated(crash)
    assert caught.value.reason is reason


def test_results_and_faults_come_back_from_the_child(capfd: pytest.CaptureFixture[str]) -> None:
    def fault() -> None:
        raise JobError(Reason.UNSAFE_SOURCE, "no")

    def bug() -> None:
        raise KeyError("x")

    def full() -> None:
        raise OSError(28, "No space left on device")

    assert isolated(lambda: "x" * (1 << 20)) == "x" * (1 << 20)
    with pytest.raises(JobError, match="UnsafeSource: no"):
        isolated(fault)
    with pytest.raises(JobError, match="InternalError: KeyError"):
        isolated(bug)
    with pytest.raises(OSError, match="No space"):
        isolated(full)
    assert "Traceback" in capfd.readouterr().err


def test_the_keeper_as_a_process_serves_and_stops_at_once(layout: Layout) -> None:
    command = [sys.executable, "-m", "engine_builder", "keeper", "--repository", str(layout.root)]
    command += ["--listen", "127.0.0.1:0", "--cluster", "c", "--namespace", "n", "--claim-uid", "u"]
    environment = {**os.environ, "KEEPER_KEY": "00" * 32}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        events = []
        while "ready" not in events:
            events.append(json.loads(process.stdout.readline())["event"])
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0
        assert time.monotonic() - began < 3
    assert json.loads((layout.root / ".owner").read_text()) == {
        "cluster": "c",
        "namespace": "n",
        "claimUID": "u",
    }


def test_contract_and_keeper_need_the_standard_library_only() -> None:
    code = (
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        assert name.split('.')[0] not in {'numpy', 'onnx', 'onnxruntime', 'tritonclient', 'grpc'}\n"
        "sys.meta_path.insert(0, Block())\n"
        "import engine_builder.__main__, engine_builder.serve, engine_builder.contract\n"
        "import engine_builder.compile\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
