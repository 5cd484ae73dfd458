"""A TensorRT library that knows its version and nothing else, made by the C compiler of this machine."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

PARTS = ("Major", "Minor", "Patch", "Build")


def a_library(path: Path, version: str, *, more: str = "") -> None:
    """Write a library of this version, with `more` C code; skip the test where there is no compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    functions = (
        f"int getInferLib{part}Version(void) {{ return {number}; }}"
        for part, number in zip(PARTS, version.split("."), strict=False)
    )
    source = path.with_suffix(".c")
    source.write_text("\n".join([*functions, more]))
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(path), str(source)], check=True)
