from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from engine_builder import faults

if TYPE_CHECKING:
    from pathlib import Path

LOAD_TWICE = "from engine_builder import faults; [faults.point('load', name) for name in 'ab']; print('end')"


def run(directory: Path | None, script: str = LOAD_TWICE) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != faults.VARIABLE}
    if directory is not None:
        environment[faults.VARIABLE] = str(directory)
    command = [sys.executable, "-c", script, "keeper"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def noted(directory: Path) -> list[str]:
    """Return what the log says, without the process ids."""
    fields = [line.split(" ") for line in (directory / "log").read_text().splitlines()]
    return [" ".join([sequence, role, *rest]) for sequence, role, _, *rest in fields]


def test_point_does_nothing_unless_a_directory_is_named(tmp_path: Path) -> None:
    done = run(None)
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")
    assert list(tmp_path.iterdir()) == []


def test_effects_of_all_processes_are_noted_in_their_order(tmp_path: Path) -> None:
    run(tmp_path)
    run(tmp_path, "from engine_builder import faults; faults.point('rename')")
    assert noted(tmp_path) == ["1 keeper load a", "2 keeper load b", "3 keeper rename "]


@pytest.mark.parametrize(("order", "last"), [("load#1", "1 keeper load a"), ("load#2\n", "2 keeper load b")])
def test_process_is_killed_right_after_the_effect_that_is_ordered(
    tmp_path: Path, order: str, last: str
) -> None:
    (tmp_path / "kill").write_text(order)
    done = run(tmp_path)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "")
    assert noted(tmp_path)[-1] == last


def test_order_is_carried_out_once(tmp_path: Path) -> None:
    (tmp_path / "kill").write_text("load#2")
    assert run(tmp_path).returncode == -signal.SIGKILL
    assert not (tmp_path / "kill").exists()
    assert run(tmp_path).returncode == 0


def test_order_for_an_effect_that_does_not_occur_stays(tmp_path: Path) -> None:
    (tmp_path / "kill").write_text("load#3")
    assert run(tmp_path).returncode == 0
    assert (tmp_path / "kill").exists()


def test_occurrences_count_across_processes(tmp_path: Path) -> None:
    (tmp_path / "kill").write_text("load#3")
    assert [run(tmp_path).returncode for _ in range(2)] == [0, -signal.SIGKILL]
