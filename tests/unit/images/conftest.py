"""Load the modules of `hack/images` and of the CPU backend, which are no packages."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).resolve().parents[3]


def load(path: str) -> ModuleType:
    """Import a file under a name of its own; its neighbours are visible only while it loads."""
    file = ROOT / path
    name = "images_test_" + path.removesuffix(".py").replace("/", "_").replace("-", "_")
    before = set(sys.modules)
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(file.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(file.parent))
        neighbours = {path.stem for path in file.parent.glob("*.py")}
        for added in neighbours & (set(sys.modules) - before):
            del sys.modules[added]
    return module


@pytest.fixture(scope="session")
def batching() -> ModuleType:
    return load("images/triton-cpu/common/batching.py")


@pytest.fixture(scope="session")
def signature() -> ModuleType:
    return load("images/triton-cpu/common/signature.py")


@pytest.fixture(scope="session")
def recipe() -> ModuleType:
    return load("hack/images/recipe.py")


@pytest.fixture(scope="session")
def host() -> ModuleType:
    return load("hack/images/host.py")
