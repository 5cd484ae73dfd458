from __future__ import annotations

import pytest
from tests.unit.engine_builder.cuda_driver import Device, a_driver

from engine_builder.compilers import gpu
from engine_builder.compilers.gpu import Gpu
from engine_builder.contract import Reason, Target
from engine_builder.errors import JobError

A10 = Target("NVIDIA-A10", "8.6", 23028)
FOUND = Gpu("NVIDIA A10", "8.6", 22731, "12.8")


def test_the_driver_tells_name_capability_memory_and_version() -> None:
    driver = a_driver(Device("NVIDIA A10", (8, 6), 22731), Device("NVIDIA L4", (8, 9), 22478), version=13010)
    assert gpu.find(driver) == [
        Gpu("NVIDIA A10", "8.6", 22731, "13.1"),
        Gpu("NVIDIA L4", "8.9", 22478, "13.1"),
    ]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (35, Reason.DRIVER_TOO_OLD),
        (803, Reason.DRIVER_TOO_OLD),
        (804, Reason.DRIVER_TOO_OLD),
        (100, Reason.NO_GPU),
        (999, Reason.NO_GPU),
    ],
)
def test_a_driver_that_does_not_begin_is_told_with_its_number(error: int, reason: Reason) -> None:
    with pytest.raises(JobError) as caught:
        gpu.find(a_driver(fails={"cuInit": error}))
    assert caught.value.reason is reason
    assert str(error) in caught.value.message


def test_a_pod_without_a_driver_has_no_gpu() -> None:
    with pytest.raises(JobError, match="NoGPU: the pod has no libcuda") as caught:
        gpu.load()
    assert "device plugin" in caught.value.message


def test_no_device_is_no_gpu() -> None:
    with pytest.raises(JobError, match="NoGPU"):
        gpu.check(gpu.find(a_driver()), A10)


@pytest.mark.parametrize(
    ("found", "target"),
    [
        (FOUND, A10),
        (FOUND, Target("", "8.6")),
        (FOUND, Target("A10", "8.6", 23028)),
        (Gpu("Tesla T4", "7.5", 14930, "12.8"), Target("Tesla-T4", "7.5", 15360)),
        (
            Gpu("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "8.0", 4864, "12.8"),
            Target("NVIDIA-A100-SXM4-40GB-MIG-1g.5gb", "8.0", 4864),
        ),
    ],
)
def test_a_label_names_the_gpu_that_the_driver_names(found: Gpu, target: Target) -> None:
    assert gpu.check([found], target) == found


@pytest.mark.parametrize(
    ("found", "target", "words"),
    [
        (Gpu("NVIDIA L4", "8.9", 22478, "12.8"), A10, ["NVIDIA L4", "8.9", "capability differs"]),
        (Gpu("NVIDIA A40", "8.6", 45416, "12.8"), A10, ["NVIDIA A40", "product differs"]),
        (
            Gpu("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "8.0", 4864, "12.8"),
            Target("NVIDIA-A100-SXM4-40GB-MIG-2g.10gb", "8.0", 9728),
            ["product differs"],
        ),
        (FOUND, Target("", "8.6", 49140), ["49140 MiB"]),
    ],
)
def test_another_gpu_than_the_target_is_refused(found: Gpu, target: Target, words: list[str]) -> None:
    with pytest.raises(JobError) as caught:
        gpu.check([found], target)
    assert caught.value.reason is Reason.WRONG_GPU
    for word in (*words, "nodeSelector"):
        assert word in caught.value.message


def test_every_gpu_of_the_pod_must_be_the_target() -> None:
    with pytest.raises(JobError, match="WrongGPU"):
        gpu.check([FOUND, Gpu("NVIDIA L4", "8.9", 22478, "12.8")], A10)


@pytest.mark.parametrize(
    ("capability", "tensorrt"),
    [("7.5", (10, 3, 0)), ("7.0", (10, 3, 0)), ("7.5", (11, 4, 0, 106)), ("12.1", (11, 4))],
)
def test_what_tensorrt_builds_for_passes(capability: str, tensorrt: tuple[int, ...]) -> None:
    gpu.check_supported(Target("", capability), tensorrt=tensorrt)


@pytest.mark.parametrize(("capability", "tensorrt"), [("6.1", (10, 3, 0)), ("7.0", (10, 5, 0))])
def test_what_tensorrt_does_not_build_for_is_refused_before_a_gpu_is_asked(
    capability: str, tensorrt: tuple[int, ...]
) -> None:
    target = Target("NVIDIA-GeForce-GTX-1050-Ti", capability)
    with pytest.raises(JobError, match="UnsupportedTarget") as caught:
        gpu.check_supported(target, tensorrt=tensorrt)
    assert "GTX-1050-Ti" in caught.value.message
