"""The release gate, as Triton's image runs it: this file's text, a Python, and a TensorRT or none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.libnvinfer import a_library

from engine_builder import check_release

CRASH = "__attribute__((constructor)) static void crash(void) { *(volatile int *)0 = 1; }"


def a_tree(root: Path, **models: str) -> Path:
    """Write a tree; keywords are models with the TensorRT of their version 1, or with nothing."""
    tree = root / "servers" / "a10" / "26.07"
    tree.mkdir(parents=True)
    for name, tensorrt in models.items():
        entry = root / "store" / f"engine-{name}"
        entry.mkdir(parents=True)
        (entry / "MANIFEST").write_text(json.dumps({"engine": entry.name, "tensorrt": tensorrt}))
        (tree / name).mkdir()
        (tree / name / "config.pbtxt").write_text("")
        (tree / name / "1").symlink_to(f"../../../../store/{entry.name}")
    return tree


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Return where the image's libraries lie; there is none yet."""
    libraries = tmp_path / "lib"
    libraries.mkdir()
    return libraries


def gate(tree: Path, image: Path) -> tuple[int, str]:
    """Run the gate; returns its exit code and its termination message."""
    log = tree.parents[2] / "termination-log"
    code = Path(check_release.__file__).read_text()
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(tree), str(log)],
        env={"LD_LIBRARY_PATH": str(image), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not run.stderr
    assert run.stdout.strip() == log.read_text()
    return run.returncode, log.read_text()


def test_plans_of_the_images_tensorrt_start(tmp_path: Path, image: Path) -> None:
    a_library(image / "libnvinfer.so.10", "10.9.0.34")
    tree = a_tree(tmp_path, detector="10.9.0.34", reader="10.9.0.34", text="")
    assert gate(tree, image) == (
        0,
        "this image has TensorRT 10.9.0.34 (libnvinfer.so.10), as the plans of the tree need",
    )


@pytest.mark.parametrize("built", ["10.9.0.33", "10.3.0.26", "11.0.0.114", "1.7.1.116"])
def test_plan_of_another_tensorrt_is_refused_by_name(tmp_path: Path, image: Path, built: str) -> None:
    a_library(image / "libnvinfer.so.10", "10.9.0.34")
    code, message = gate(a_tree(tmp_path, detector=built, reader="10.9.0.34"), image)
    assert code == 10
    assert "TensorRT 10.9.0.34 (libnvinfer.so.10)" in message
    assert message.endswith(f": engine-detector ({built})")


def test_message_names_three_engines_and_counts_the_rest(tmp_path: Path, image: Path) -> None:
    a_library(image / "libnvinfer.so.10", "10.9.0.34")
    code, message = gate(a_tree(tmp_path, **{f"m{n}": "10.3.0.26" for n in range(5)}), image)
    assert code == 10
    assert message.count("engine-") == 3
    assert message.endswith(" and 2 more")


def test_image_without_tensorrt_says_so_and_starts(tmp_path: Path, image: Path) -> None:
    code, message = gate(a_tree(tmp_path, detector="10.9.0.34"), image)
    assert code == 0
    assert "no libnvinfer" in message


@pytest.mark.parametrize("name", ["a10", "nowhere"])
def test_tree_without_plans_starts_whatever_the_image_has(tmp_path: Path, image: Path, name: str) -> None:
    (image / "libnvinfer.so.10").write_text("not a library")
    tree = a_tree(tmp_path, text="")
    code, message = gate(tree.parent.parent / name / "26.07", image)
    assert (code, "nothing to compare" in message) == (0, True)


def test_candidate_and_damaged_entry_refuse_nobody(tmp_path: Path, image: Path) -> None:
    a_library(image / "libnvinfer.so.10", "10.9.0.34")
    tree = a_tree(
        tmp_path, **{"detector": "10.9.0.34", "detector.candidate": "10.3.0.26", "lost": "1", "odd": "1"}
    )
    (tree / "lost" / "1" / "MANIFEST").unlink()
    (tree / "odd" / "1" / "MANIFEST").write_text("{")
    assert gate(tree, image)[0] == 0


@pytest.mark.parametrize("broken", ["crashing", "needing what is not there", "not telling"])
def test_library_that_cannot_say_it_is_known_by_its_file(tmp_path: Path, image: Path, broken: str) -> None:
    file = image / "libnvinfer.so.10.9.0"
    if broken == "crashing":
        a_library(file, "10.9.0.34", more=CRASH)
    elif broken == "not telling":
        a_library(file, "10.9")
    else:
        file.write_text("no library at all")
    (image / "libnvinfer.so.10").symlink_to(file.name)
    tree = a_tree(tmp_path, detector="10.9.0.34")
    assert gate(tree, image) == (
        0,
        "this image has TensorRT 10.9.0 (libnvinfer.so.10), as the plans of the tree need",
    )
    (tree / "detector" / "1" / "MANIFEST").write_text(
        '{"engine": "engine-detector", "tensorrt": "10.8.0.43"}'
    )
    assert gate(tree, image)[0] == 10


def test_of_two_libraries_the_one_counts_that_tritons_backend_asks_for(tmp_path: Path) -> None:
    backend = tmp_path / "libtriton_tensorrt.so"
    backend.write_bytes(b"\x7fELF\0libnvinfer_plugin.so.10\0libnvinfer.so.10\0libc.so.6\0")
    assert check_release._names(backend) == ["libnvinfer.so.10"]
    assert "libnvinfer.so.11" in check_release._names(tmp_path / "none")
