from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from engine_builder.volume import Layout

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Return an empty repository volume."""
    root = tmp_path / "repository"
    root.mkdir()
    found = Layout(root)
    found.make()
    return found


@pytest.fixture
def small_volume(tmp_path: Path) -> Iterator[Layout]:
    """Return a real volume of 4 MiB; needs root, as the rest of `make test` does."""
    root = tmp_path / "small"
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(root)], check=True)
    try:
        found = Layout(root)
        found.make()
        yield found
    finally:
        subprocess.run(["umount", "--lazy", str(root)], check=True)
