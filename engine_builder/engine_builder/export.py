"""Copy this package to where the Python of another image finds it: TensorRT's, in compile Jobs."""

from __future__ import annotations

import shutil
from pathlib import Path


def export(into: Path) -> Path:
    """Copy the package's Python files and return the directory that was made.

    Raises:
        OSError: `into` can't be written.
    """
    package = Path(__file__).parent
    target = into / package.name
    shutil.copytree(package, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    return target
