"""The GPUs that a pod sees, asked of the CUDA driver, and whether they are the target.

Needs no CUDA toolkit: the driver's own library is mounted into every pod with a GPU. Call it in a child
process only, for a process that has used CUDA cannot fork any more.
"""

from __future__ import annotations

import ctypes
import dataclasses
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from engine_builder.contract import Reason
from engine_builder.errors import JobError

if TYPE_CHECKING:
    from engine_builder.contract import Target

LIBRARY = "libcuda.so.1"

_MAJOR, _MINOR = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_{MAJOR,MINOR}"""
_NAME_BYTES = 256
_NO_DEVICE = 100
_TOO_OLD = frozenset({35, 803, 804})
"""CUDA_ERROR_INSUFFICIENT_DRIVER, _SYSTEM_DRIVER_MISMATCH, _COMPAT_NOT_SUPPORTED_ON_DEVICE"""
_MEMORY_SHARE = 0.8
"""The driver keeps some memory for itself: a GPU has at least this share of what its label says."""
_TURING = (7, 5)
_VOLTA = (7, 0)
_WITHOUT_VOLTA = (10, 5)
"""First TensorRT that lacks it."""


@dataclasses.dataclass(frozen=True)
class Gpu:
    """A GPU, or the part of one that MIG gives to this pod; memory in MiB."""

    name: str
    compute_capability: str
    memory_mib: int
    driver: str
    """The CUDA version that the driver supports: `12.8`."""


def load() -> Any:
    """Return the driver's library.

    Raises:
        JobError: `NoGPU`.
    """
    try:
        return ctypes.CDLL(LIBRARY)
    except OSError:
        raise JobError(
            Reason.NO_GPU,
            f"the pod has no {LIBRARY}: it was given no GPU, or the node's NVIDIA container toolkit does not "
            "work; look at the device plugin of the node",
        ) from None


def find(driver: Any) -> list[Gpu]:
    """Return the GPUs that this process may use.

    Raises:
        JobError: `NoGPU`, `DriverTooOld`.
    """
    _ask(driver, "cuInit", 0)
    version, count = ctypes.c_int(), ctypes.c_int()
    _ask(driver, "cuDriverGetVersion", ctypes.byref(version))
    _ask(driver, "cuDeviceGetCount", ctypes.byref(count))
    text = f"{version.value // 1000}.{version.value % 1000 // 10}"
    return [_describe(driver, ordinal, text) for ordinal in range(count.value)]


def _describe(driver: Any, ordinal: int, version: str) -> Gpu:
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    memory, name = ctypes.c_size_t(), ctypes.create_string_buffer(_NAME_BYTES)
    _ask(driver, "cuDeviceGet", ctypes.byref(device), ordinal)
    _ask(driver, "cuDeviceGetName", name, _NAME_BYTES, device)
    _ask(driver, "cuDeviceTotalMem_v2", ctypes.byref(memory), device)
    for number, attribute in ((major, _MAJOR), (minor, _MINOR)):
        _ask(driver, "cuDeviceGetAttribute", ctypes.byref(number), attribute, device)
    return Gpu(
        name=name.value.decode(errors="replace"),
        compute_capability=f"{major.value}.{minor.value}",
        memory_mib=memory.value >> 20,
        driver=version,
    )


def _ask(driver: Any, function: str, *arguments: Any) -> None:
    result = getattr(driver, function)(*arguments)
    if result:
        raise no_cuda(result)


def no_cuda(error: int) -> JobError:
    """Return what CUDA's error number means when nothing has begun yet."""
    if error in _TOO_OLD:
        return JobError(
            Reason.DRIVER_TOO_OLD,
            f"the node's NVIDIA driver is too old for the compiler image (CUDA error {error}): update the "
            "driver, or take an older release",
        )
    what = "it was given no GPU" if error == _NO_DEVICE else "the GPU does not answer"
    return JobError(
        Reason.NO_GPU,
        f"CUDA finds no GPU in the pod (error {error}): {what}; look at the device plugin and the kernel log "
        "of the node",
    )


def check(gpus: Sequence[Gpu], target: Target) -> Gpu:
    """Return the GPU to build on.

    Raises:
        JobError: `NoGPU`, or `WrongGPU` where one of them is not the target.
    """
    if not gpus:
        raise no_cuda(_NO_DEVICE)
    for gpu in gpus:
        difference = _difference(gpu, target)
        if difference:
            raise JobError(
                Reason.WRONG_GPU,
                f"the pod got {gpu.name} (capability {gpu.compute_capability}, {gpu.memory_mib} MiB), "
                f"not {target}: {difference}; correct the node's labels, or spec.gpu and nodeSelector of the "
                "TritonServer",
            )
    return gpus[0]


def _difference(gpu: Gpu, target: Target) -> str:
    if gpu.compute_capability != target.compute_capability:
        return "the compute capability differs"
    if target.product and _plain(gpu.name) != _plain(target.product):
        return "the product differs, and a plan is tuned for one"
    if gpu.memory_mib < target.memory_mib * _MEMORY_SHARE:
        return f"the target has {target.memory_mib} MiB"
    return ""


def _plain(product: str) -> str:
    """Return a product's name as GPU feature discovery writes it in labels, without vendor and case.

    What MIG gives is named `NVIDIA A100-SXM4-40GB MIG 1g.5gb` by CUDA, `…-MIG-1g.5gb` in labels.
    """
    return re.sub(r"[\s_-]+", "-", product.strip()).lower().removeprefix("nvidia-")


def check_supported(target: Target, *, tensorrt: Sequence[int]) -> None:
    """Check that TensorRT of that version builds for the target at all.

    Raises:
        JobError: `UnsupportedTarget`.
    """
    lowest = _VOLTA if tuple(tensorrt[:2]) < _WITHOUT_VOLTA else _TURING
    if target.capability < lowest:
        raise JobError(
            Reason.UNSUPPORTED_TARGET,
            f"TensorRT {'.'.join(map(str, tensorrt))} builds for compute capability "
            f"{lowest[0]}.{lowest[1]} and later, and the target is {target}: serve the model with another "
            "backend there",
        )
