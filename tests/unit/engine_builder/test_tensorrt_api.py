"""The compiler against the recorded API of each TensorRT: what a version lacks fails.

What TensorRT then does is proven with TensorRT for RTX (test_compile.py); here nothing is computed.
"""

from __future__ import annotations

import dataclasses
import importlib.machinery
import sys
from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.engine_builder.cuda_driver import Device, a_driver
from tests.unit.engine_builder.tensorrt_surface import VERSIONS, Surface

from engine_builder.compilers import api, builder, gpu, monitor, timing_cache
from engine_builder.compilers.gpu import Gpu
from engine_builder.compilers.task import Task
from engine_builder.contract import (
    CompileOptions,
    Portability,
    ProfileInput,
    Reason,
    Signature,
    Target,
    Tensor,
)
from engine_builder.errors import JobError
from engine_builder.progress import Progress

if TYPE_CHECKING:
    from engine_builder.compilers.task import Built
    from engine_builder.volume import Layout

TARGET = Target("NVIDIA-A10", "8.6", 20000)
FOUND = Gpu("NVIDIA A10", "8.6", 22731, "12.8")
SIGNATURE = Signature((Tensor("x", "FP32", (-1, 4)),), (Tensor("y", "FP32", (-1, 4)),))
CLASSIC = [version for version in VERSIONS if not version.startswith("rtx")]


def compiled(
    surface: Surface, layout: Layout, *, options: CompileOptions | None = None, **kwargs: Any
) -> Built:
    described = api.describe(surface.module, "tensorrt")
    place = layout.staging / "uid"
    place.mkdir(exist_ok=True)
    task = Task(
        repository=layout.root,
        model=layout.root / "model.onnx",
        place=place,
        signature=SIGNATURE,
        options=options or CompileOptions(max_batch_size=8),
        target=TARGET,
        **kwargs,
    )
    found = None if described.features.names_targets else FOUND
    return builder.Compiler(
        described, task, found=found, progress=Progress(quiet=True), stop=monitor.Stop()
    ).run()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_whole_build_uses_nothing_that_the_version_lacks(version: str, layout: Layout) -> None:
    surface = Surface(version)
    built = compiled(surface, layout)
    assert (layout.staging / "uid/model.plan").read_bytes() == surface.plan()
    assert built.version.startswith(".".join(map(str, surface.numbers)))
    assert built.plan_bytes == len(surface.plan())
    assert surface.called("IOptimizationProfile.set_shape") == [("x", (1, 4), (8, 4), (8, 4))]
    assert surface.called("IBuilderConfig.builder_optimization_level") == [3]
    ((pool, size),) = surface.called("IBuilderConfig.set_memory_pool_limit")
    assert (pool.name, size) == ("WORKSPACE", 20000 * 2**20 * 70 // 100)
    ((tf32,),) = surface.called("IBuilderConfig.clear_flag")
    assert tf32.name == "TF32"


@pytest.mark.parametrize("version", VERSIONS)
def test_networks_are_strongly_typed_whatever_the_integer_of_the_flag(version: str, layout: Layout) -> None:
    surface = Surface(version)
    compiled(surface, layout)
    ((flags,),) = surface.called("Builder.create_network")
    assert flags == 1 << surface.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED.value


def test_the_flags_integer_is_not_the_same_everywhere() -> None:
    values = {Surface(v).module.NetworkDefinitionCreationFlag.STRONGLY_TYPED.value for v in VERSIONS}
    assert values == {0, 1}


@pytest.mark.parametrize("feature", [field.name for field in dataclasses.fields(api.Features)])
def test_every_difference_between_versions_has_a_version_on_each_side(feature: str) -> None:
    sides = {getattr(api.describe(Surface(v).module, v).features, feature) for v in VERSIONS}
    assert sides == {True, False}


def test_every_branch_for_a_version_is_taken(layout: Layout) -> None:
    """Each of these calls is made with some versions and not with others."""
    seen: dict[str, set[str]] = {}
    for version in VERSIONS:
        surface = Surface(version)
        compiled(surface, layout)
        (layout.staging / "uid/model.plan").unlink()
        for called, _ in surface.calls:
            seen.setdefault(called, set()).add(version)
    assert seen["Builder.build_serialized_network"] == {"10.3.0", "10.9.0"}
    assert seen["Builder.build_serialized_network_to_stream"] == {"10.16.1", "11.4.0", "rtx-1.7.1"}
    assert seen["IBuilderConfig.set_compute_capability"] == {"rtx-1.7.1"}
    assert seen["IBuilderConfig.create_timing_cache"] == set(CLASSIC)
    assert seen["Runtime.deserialize_cuda_engine"] == set(CLASSIC)
    sometimes = {called for called, versions in seen.items() if versions != set(VERSIONS)}
    assert sometimes == {
        "Builder.build_serialized_network",
        "Builder.build_serialized_network_to_stream",
        "EngineInspector.get_engine_information",
        "IBuilderConfig.create_timing_cache",
        "IBuilderConfig.get_timing_cache",
        "IBuilderConfig.num_compute_capabilities",
        "IBuilderConfig.set_compute_capability",
        "IBuilderConfig.set_timing_cache",
        "ICudaEngine.create_engine_inspector",
        "ITimingCache.serialize",
        "Runtime.deserialize_cuda_engine",
    }


@pytest.mark.parametrize("version", CLASSIC)
def test_the_engine_is_looked_at_where_there_is_its_gpu(version: str, layout: Layout) -> None:
    built = compiled(Surface(version), layout)
    assert built.device_memory_bytes == 4096
    assert built.layers == {"gemm": 2, "Reformat": 1}
    assert built.gpu == FOUND


def test_tensorrt_for_rtx_is_told_its_target_and_looks_at_nothing(layout: Layout) -> None:
    surface = Surface("rtx-1.7.1")
    built = compiled(surface, layout)
    ((capability, index),) = surface.called("IBuilderConfig.set_compute_capability")
    assert (capability.name, index) == ("SM86", 0)
    assert surface.called("IBuilderConfig.num_compute_capabilities") == [1]
    assert (built.gpu, built.device_memory_bytes, built.layers) == (None, None, {})


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("portability", list(Portability))
def test_portability_is_what_the_version_has_or_a_reason(
    version: str, portability: Portability, layout: Layout
) -> None:
    surface = Surface(version)
    options = CompileOptions(max_batch_size=8, portability=portability)
    lacks = version.startswith("rtx") or (
        version == "10.3.0" and portability is Portability.SAME_COMPUTE_CAPABILITY
    )
    if portability is Portability.EXACT:
        compiled(surface, layout, options=options)
        assert surface.called("IBuilderConfig.hardware_compatibility_level") == []
    elif lacks:
        with pytest.raises(JobError) as caught:
            compiled(surface, layout, options=options)
        assert caught.value.reason is Reason.UNSUPPORTED_OPTION
        assert portability.value in caught.value.message
    else:
        compiled(surface, layout, options=options)
        (level,) = surface.called("IBuilderConfig.hardware_compatibility_level")
        assert level.name.replace("_", "").lower() == portability.value.lower()


@pytest.mark.parametrize("version", VERSIONS)
def test_tf32_is_on_unless_fp32_is_asked_for(version: str, layout: Layout) -> None:
    surface = Surface(version)
    compiled(surface, layout, options=CompileOptions(max_batch_size=8, precision="TF32"))
    ((flag,),) = surface.called("IBuilderConfig.set_flag")
    assert flag.name == "TF32"
    assert surface.called("IBuilderConfig.clear_flag") == []


@pytest.mark.parametrize("version", VERSIONS)
def test_values_of_a_shape_are_given_as_such(
    version: str, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.unit.engine_builder import tensorrt_surface

    monkeypatch.setitem(tensorrt_surface.ANSWERS, "ITensor.is_shape_tensor", lambda *_: True)
    surface = Surface(version)
    monkeypatch.setattr(
        "tests.unit.engine_builder.test_tensorrt_api.SIGNATURE",
        Signature((Tensor("x", "INT64", (2,)),), SIGNATURE.outputs),
    )
    profile = ProfileInput("x", (1, 1), (2, 2), (4, 4))
    compiled(surface, layout, options=CompileOptions(profiles=((profile,),)))
    assert surface.called("IOptimizationProfile.set_shape_input") == [("x", [1, 1], [2, 2], [4, 4])]


@pytest.mark.parametrize("version", CLASSIC)
def test_the_timing_cache_is_loaded_merged_and_kept(version: str, layout: Layout) -> None:
    first, second = Surface(version), Surface(version)
    assert compiled(first, layout).timing_cache == "begun, kept: 7 bytes"
    assert [bytes(given) for (given,) in first.called("IBuilderConfig.create_timing_cache")] == [b""]
    (layout.staging / "uid/model.plan").unlink()
    where = timing_cache.at(layout, version=api.describe(first.module, "tensorrt").version, target=TARGET)
    assert where.load() == b"timings"
    assert compiled(second, layout).timing_cache == "used, kept: 7 bytes"
    assert [bytes(given) for (given,) in second.called("IBuilderConfig.create_timing_cache")] == [b"timings"]
    assert second.called("ITimingCache.combine") == []


@pytest.mark.parametrize("version", CLASSIC)
def test_what_another_build_timed_meanwhile_is_combined(
    version: str, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.unit.engine_builder import tensorrt_surface

    surface = Surface(version)
    where = timing_cache.at(layout, version=api.describe(surface.module, "tensorrt").version, target=TARGET)
    stream, whole = "Builder.build_serialized_network_to_stream", "Builder.build_serialized_network"
    for called in (stream, whole):
        answer = tensorrt_surface.ANSWERS[called]

        def meanwhile(*given: Any, answer: Any = answer) -> Any:
            where.merge(lambda _standing: b"of another", staging=layout.staging)
            return answer(*given)

        monkeypatch.setitem(tensorrt_surface.ANSWERS, called, meanwhile)
    compiled(surface, layout)
    assert [bytes(g) for (g,) in surface.called("IBuilderConfig.create_timing_cache")] == [b"", b"of another"]
    assert len(surface.called("ITimingCache.combine")) == 1


@pytest.mark.parametrize("version", CLASSIC)
def test_a_cache_that_tensorrt_refuses_is_begun_anew(
    version: str, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.unit.engine_builder import tensorrt_surface

    surface = Surface(version)
    described = api.describe(surface.module, "tensorrt")
    timing_cache.at(layout, version=described.version, target=TARGET).merge(
        lambda _standing: b"of another driver", staging=layout.staging
    )
    answers = iter([False, True])
    monkeypatch.setitem(tensorrt_surface.ANSWERS, "IBuilderConfig.set_timing_cache", lambda *_: next(answers))
    assert compiled(surface, layout).timing_cache == "begun, kept: 7 bytes"


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Surface:
    """Return a TensorRT that `import tensorrt` finds."""
    surface = Surface("10.9.0")
    surface.module.__spec__ = importlib.machinery.ModuleSpec("tensorrt", None)
    monkeypatch.setitem(sys.modules, "tensorrt", surface.module)
    return surface


def _task(layout: Layout, target: Target) -> Task:
    (layout.staging / "uid").mkdir()
    return Task(
        repository=layout.root,
        model=layout.root / "model.onnx",
        place=layout.staging / "uid",
        signature=SIGNATURE,
        options=CompileOptions(max_batch_size=8),
        target=target,
    )


def test_tensorrt_is_preferred_and_builds_on_the_gpu_that_is_the_target(
    installed: Surface, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "load", lambda: a_driver(Device("NVIDIA A10", (8, 6), 22731)))
    built = builder.build(_task(layout, TARGET))
    assert (built.compiler, built.gpu) == ("tensorrt", FOUND)
    assert built.workspace_bytes == 20000 * 2**20 * 70 // 100
    assert len(installed.called("Builder.build_serialized_network")) == 1


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        (TARGET, Reason.WRONG_GPU),
        (Target("NVIDIA-GeForce-GTX-1050-Ti", "6.1"), Reason.UNSUPPORTED_TARGET),
    ],
)
def test_a_gpu_that_cannot_be_is_refused_before_tensorrt_begins(
    installed: Surface,
    layout: Layout,
    monkeypatch: pytest.MonkeyPatch,
    target: Target,
    reason: Reason,
) -> None:
    monkeypatch.setattr(gpu, "load", lambda: a_driver(Device("NVIDIA L4", (8, 9), 22478)))
    with pytest.raises(JobError) as caught:
        builder.build(_task(layout, target))
    assert caught.value.reason is reason
    assert installed.calls == []


def test_a_tensorrt_that_cannot_begin_says_why(
    installed: Surface, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_this: Any, logger: Any) -> None:
        logger.log(installed.module.ILogger.WARNING, "CUDA initialization failure with error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(installed.module.Builder, "__init__", fail)
    monkeypatch.setattr(gpu, "load", lambda: a_driver(Device("NVIDIA A10", (8, 6), 22731)))
    with pytest.raises(JobError) as caught:
        builder.build(_task(layout, TARGET))
    assert caught.value.reason is Reason.DRIVER_TOO_OLD


def test_the_double_refuses_what_a_version_lacks() -> None:
    old, new, rtx = Surface("10.3.0"), Surface("11.4.0"), Surface("rtx-1.7.1")
    config = old.make("IBuilderConfig")
    with pytest.raises(AttributeError):
        config.set_compute_capability(rtx.module.ComputeCapability.SM86, 0)
    with pytest.raises(AttributeError):
        _ = new.module.BuilderFlag.FP16
    with pytest.raises(AttributeError):
        new.make("IBuilderConfig").int8_calibrator = None
    with pytest.raises(TypeError, match="no IBuilderConfig"):
        old.make("Builder").build_serialized_network(old.make("INetworkDefinition"), None)
    with pytest.raises(TypeError):
        config.set_timing_cache(old.make("ITimingCache"))
    with pytest.raises(TypeError, match="No constructor"):
        old.module.IBuilderConfig()

    class Careless(old.module.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            pass

    with pytest.raises(TypeError, match="was not called"):
        old.module.Builder(Careless())
