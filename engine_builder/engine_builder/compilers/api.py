"""One way to speak to `tensorrt` 10.3 to 11.x and to `tensorrt_rtx`: which of them is here, and what it has.

What differs is asked for by name and never by version, and never as a number: the integers behind the
enums move from one version to the next.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import re
from typing import Any

from engine_builder.contract import Portability, Reason
from engine_builder.errors import JobError

TENSORRT, RTX = "tensorrt", "tensorrt_rtx"
AUTO = "auto"
COMPILERS = (TENSORRT, RTX)

_LEVELS = {
    Portability.SAME_COMPUTE_CAPABILITY: "SAME_COMPUTE_CAPABILITY",
    Portability.AMPERE_PLUS: "AMPERE_PLUS",
}


@dataclasses.dataclass(frozen=True)
class Features:
    """What some versions have and others lack."""

    names_targets: bool
    """It builds for a compute capability that is named, without that GPU (TensorRT for RTX)."""
    writes_streams: bool
    """It writes a plan piece by piece instead of holding all of it in memory (10.13)."""
    same_compute_capability: bool
    """It knows plans for all GPUs of a compute capability (10.9)."""


@dataclasses.dataclass(frozen=True)
class Api:
    """TensorRT's Python module, and what it has."""

    trt: Any
    name: str
    version: str
    """Its numbers, as many as the module tells: `10.9.0.34`."""
    features: Features

    @property
    def numbers(self) -> tuple[int, ...]:
        """Return the version to compare with."""
        return tuple(int(number) for number in self.version.split("."))

    def network_flags(self) -> int:
        """Return the flags of a strongly typed network, of those that this version has."""
        kinds = self.trt.NetworkDefinitionCreationFlag
        wanted = [getattr(kinds, name) for name in ("STRONGLY_TYPED",) if hasattr(kinds, name)]
        return sum(1 << int(flag) for flag in wanted)

    def compatibility_level(self, portability: Portability) -> Any:
        """Return the hardware compatibility level for a portability other than `Exact`.

        Raises:
            JobError: `UnsupportedOption`.
        """
        if self.features.names_targets:
            raise _no_portability(portability, f"TensorRT for RTX {self.version}: leave it at Exact")
        levels, name = self.trt.HardwareCompatibilityLevel, _LEVELS[portability]
        if not hasattr(levels, name):
            raise _no_portability(
                portability, f"TensorRT {self.version}: take a release with TensorRT 10.9 or later, or Exact"
            )
        return getattr(levels, name)

    def compute_capability(self, capability: tuple[int, int]) -> Any:
        """Return the member for a compute capability that is to be named.

        Raises:
            JobError: `UnsupportedTarget`.
        """
        members, wanted = self.trt.ComputeCapability, "SM{}{}".format(*capability)
        if not hasattr(members, wanted):
            known = sorted(int(name[2:]) for name in dir(members) if re.fullmatch(r"SM[0-9]+", name))
            raise JobError(
                Reason.UNSUPPORTED_TARGET,
                f"TensorRT for RTX {self.version} does not build for compute capability "
                f"{capability[0]}.{capability[1]}; it builds for "
                f"{', '.join(f'{n // 10}.{n % 10}' for n in known)}",
            )
        return getattr(members, wanted)


def load(compiler: str) -> Api:
    """Import a compiler, or the first of `COMPILERS` that is here for `auto`.

    Raises:
        JobError: `CompilerMissing`.
    """
    names = COMPILERS if compiler == AUTO else (compiler,)
    found = [name for name in names if importlib.util.find_spec(name) is not None]
    if not found:
        raise JobError(
            Reason.COMPILER_MISSING,
            f"this image has no Python module {' or '.join(names)}: set spec.compilerImage of the "
            "TritonServer to the TensorRT image of its release",
        )
    try:
        module = importlib.import_module(found[0])
    except (ImportError, OSError, RuntimeError) as error:
        raise JobError(
            Reason.COMPILER_MISSING,
            f"the Python module {found[0]} of this image cannot be imported: {error}; check "
            "spec.compilerImage of the TritonServer",
        ) from error
    return describe(module, found[0])


def describe(module: Any, name: str) -> Api:
    """Return what a TensorRT module has."""
    version = re.match(r"[0-9]+(?:\.[0-9]+){0,3}", str(module.__version__))
    return Api(
        trt=module,
        name=name,
        version=version[0] if version else "0",
        features=Features(
            names_targets=hasattr(module.IBuilderConfig, "set_compute_capability"),
            writes_streams=hasattr(module.Builder, "build_serialized_network_to_stream"),
            same_compute_capability=hasattr(module.HardwareCompatibilityLevel, "SAME_COMPUTE_CAPABILITY"),
        ),
    )


def _no_portability(portability: Portability, why: str) -> JobError:
    return JobError(Reason.UNSUPPORTED_OPTION, f"build.portability {portability.value} is not known to {why}")
