from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from engine_builder.__main__ import main

if TYPE_CHECKING:
    from pathlib import Path


def test_the_copy_runs_by_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path)]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "engine_builder")
    command = [sys.executable, "-S", "-m", "engine_builder", "compile", "--help"]
    run = subprocess.run(
        command, env={"PYTHONPATH": str(tmp_path)}, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert "--target" in run.stdout


def test_a_directory_that_can_not_be_written_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["export", str(tmp_path / "file")]) == 20
    assert str(tmp_path / "file") in capsys.readouterr().err
