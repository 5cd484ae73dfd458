"""A CUDA driver without a GPU: ctypes calls real functions, which fill the memory that they are given."""

from __future__ import annotations

import ctypes
import dataclasses
import types
from typing import Any


@dataclasses.dataclass(frozen=True)
class Device:
    name: str
    capability: tuple[int, int]
    memory_mib: int


def a_driver(*devices: Device, version: int = 12080, fails: dict[str, int] | None = None) -> Any:
    """Build libcuda of functions that write where the caller points, as C does."""
    out, integer = ctypes.POINTER(ctypes.c_int), ctypes.c_int

    def init(_flags: int) -> None:
        pass

    def driver_version(where: Any) -> None:
        where[0] = version

    def count(where: Any) -> None:
        where[0] = len(devices)

    def get(where: Any, ordinal: int) -> None:
        where[0] = ordinal

    def name(where: Any, length: int, device: int) -> None:
        text = devices[device].name.encode() + b"\0"
        assert len(text) <= length
        ctypes.memmove(where, text, len(text))

    def memory(where: Any, device: int) -> None:
        where[0] = devices[device].memory_mib << 20

    def attribute(where: Any, number: int, device: int) -> None:
        where[0] = devices[device].capability[{75: 0, 76: 1}[number]]

    functions = {
        "cuInit": (init, [ctypes.c_uint]),
        "cuDriverGetVersion": (driver_version, [out]),
        "cuDeviceGetCount": (count, [out]),
        "cuDeviceGet": (get, [out, integer]),
        "cuDeviceGetName": (name, [ctypes.c_void_p, integer, integer]),
        "cuDeviceTotalMem_v2": (memory, [ctypes.POINTER(ctypes.c_size_t), integer]),
        "cuDeviceGetAttribute": (attribute, [out, integer, integer]),
    }

    def exported(called: str) -> Any:
        function, arguments = functions[called]

        def run(*given: Any) -> int:
            function(*given)
            return (fails or {}).get(called, 0)

        return ctypes.CFUNCTYPE(ctypes.c_int, *arguments)(run)

    return types.SimpleNamespace(**{called: exported(called) for called in functions})
