"""What a compiler is asked for and what it answers: plain data, to the child process and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from engine_builder.compilers.api import AUTO
from engine_builder.compilers.gpu import Gpu
from engine_builder.compilers.profiles import Profile
from engine_builder.contract import CompileOptions, Signature, Target

_COMPILER_STEPS = ("import", "start", "parse", "build")


@dataclasses.dataclass(frozen=True)
class Task:
    """What to build: `model` with the signature it was prepared with, into the directory `place`."""

    repository: Path
    model: Path
    place: Path
    signature: Signature
    options: CompileOptions
    target: Target
    compiler: str = AUTO
    timing_cache: bool = True


@dataclasses.dataclass(frozen=True)
class Built:
    """What came of a task; bytes, and seconds by step."""

    compiler: str
    version: str
    """Of the plan: always four numbers."""
    signature: Signature
    profiles: tuple[Profile, ...]
    plan_bytes: int
    plan_sha256: str
    workspace_bytes: int
    gpu: Gpu | None
    device_memory_bytes: int | None
    layers: Mapping[str, int]
    timing_cache: str
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    seconds: Mapping[str, float]

    @property
    def compiler_seconds(self) -> float:
        """Return what TensorRT itself took to make the plan, its import and start included."""
        return round(sum(self.seconds.get(step, 0.0) for step in _COMPILER_STEPS), 3)
