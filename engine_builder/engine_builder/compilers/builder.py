"""The compiler: a prepared ONNX model to a plan, with TensorRT 10.3 to 11.x or TensorRT for RTX.

One build per child process (see `isolation`): TensorRT may crash, hang, swallow signals, and gives other
bytes after a build that failed. Networks are strongly typed: the precision stands in the model.
"""

from __future__ import annotations

import contextlib
import json
import mmap
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine_builder import store
from engine_builder.compilers import api as apis
from engine_builder.compilers import (
    callbacks,
    explain,
    gpu,
    monitor,
    plan_file,
    plan_header,
    profiles,
    timing_cache,
)
from engine_builder.compilers import network as networks
from engine_builder.compilers.gpu import Gpu
from engine_builder.compilers.profiles import Profile
from engine_builder.compilers.task import Built, Task
from engine_builder.contract import Portability, Reason
from engine_builder.errors import JobError
from engine_builder.progress import Progress
from engine_builder.volume import Layout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine_builder.compilers.api import Api

_KEPT_WARNINGS = 20


def build(task: Task) -> Built:
    """Build a plan in this process, which must be a child made for it.

    Raises:
        JobError: the reason and what to do.
        OSError: the volume failed.
    """
    progress, stop = Progress(), monitor.Stop()
    with stop.listen():
        with progress.step("import"):
            api = apis.load(task.compiler)
        found = None
        if not api.features.names_targets:
            gpu.check_supported(task.target, tensorrt=api.numbers)
            with progress.step("gpu"):
                found = gpu.check(gpu.find(gpu.load()), task.target)
        return Compiler(api, task, found=found, progress=progress, stop=stop).run()


class Compiler:
    """One build with one TensorRT."""

    def __init__(
        self, api: Api, task: Task, *, found: Gpu | None, progress: Progress, stop: monitor.Stop
    ) -> None:
        self._api, self._trt, self._task = api, api.trt, task
        self._gpu, self._progress, self._stop = found, progress, stop
        self._errors: list[str] = []
        self._warnings: list[str] = []
        self._logger = callbacks.logger(api.trt, self._errors, self._warnings, progress)
        self._teller = monitor.Teller(progress, task.place)

    def run(self) -> Built:
        """Parse, build, write and look at the plan; see `build`."""
        with self._progress.step("start"):
            builder = self._start()
            network = builder.create_network(self._api.network_flags())
        if network is None:
            raise self._failure()
        with self._progress.step("parse"):
            parser = networks.parse(  # network and parser stay alive until the end
                self._api, network, self._logger, self._task.model, log=self._errors
            )
            signature, notes = networks.signature(network, self._task.signature)
            chosen = profiles.resolve(
                self._task.signature, self._task.options, shape_inputs=networks.shape_inputs(network)
            )
        config = builder.create_builder_config()
        self._configure(builder, config, chosen)
        cache = self._open_cache(config)
        plan = self._build(builder, network, config, cache)
        header = plan_header.read(plan.beginning)
        plan_header.check(header, written=plan.written, compiler_version=self._api.version)
        kept = cache.keep() if cache else "none"
        del parser, network, builder  # what they hold on the GPU is free for the look at the engine
        memory, layers = self._inspect()
        return Built(
            compiler=self._api.name,
            version=header.version_text,
            signature=signature,
            profiles=chosen,
            plan_bytes=plan.written,
            plan_sha256=plan.sha256,
            workspace_bytes=self._workspace(),
            gpu=self._gpu,
            device_memory_bytes=memory,
            layers=layers,
            timing_cache=kept,
            notes=notes,
            warnings=tuple(self._warnings[:_KEPT_WARNINGS]),
            seconds=self._progress.seconds,
        )

    def _start(self) -> Any:
        try:
            return self._trt.Builder(self._logger)
        except (TypeError, RuntimeError):  # "factory function returned nullptr"
            raise explain.no_builder([*self._warnings, *self._errors]) from None

    def _configure(self, builder: Any, config: Any, chosen: Sequence[Profile]) -> None:
        trt, options = self._trt, self._task.options
        if self._workspace():
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, self._workspace())
        config.builder_optimization_level = options.optimization_level
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        if options.precision == "FP32":  # what is asked for, and not what TensorRT does by itself
            config.clear_flag(trt.BuilderFlag.TF32)
        else:
            config.set_flag(trt.BuilderFlag.TF32)
        if options.portability is not Portability.EXACT:
            self._check_ampere()
            config.hardware_compatibility_level = self._api.compatibility_level(options.portability)
        if self._api.features.names_targets:
            self._name_target(config)
        self._monitor = callbacks.monitor(trt, self._teller, self._stop)
        config.progress_monitor = self._monitor
        for number, profile in enumerate(chosen):
            self._add_profile(builder, config, profile, number)

    def _workspace(self) -> int:
        """Return the bytes of scratch memory that the builder may use; 0 leaves it to TensorRT."""
        sizes = [self._task.target.memory_mib, self._gpu.memory_mib if self._gpu else 0]
        memory = min((size for size in sizes if size), default=0)
        return (memory << 20) * self._task.options.workspace_percent // 100

    def _check_ampere(self) -> None:
        target = self._task.target
        if self._task.options.portability is Portability.AMPERE_PLUS and target.capability < (8, 0):
            raise JobError(
                Reason.UNSUPPORTED_OPTION,
                f"build.portability AmperePlus needs compute capability 8.0 or later, and the target is "
                f"{target}: take Exact",
            )

    def _name_target(self, config: Any) -> None:
        config.num_compute_capabilities = 1
        capability = self._api.compute_capability(self._task.target.capability)
        if not config.set_compute_capability(capability, 0):
            raise self._failure()

    def _add_profile(self, builder: Any, config: Any, profile: Profile, number: int) -> None:
        made = builder.create_optimization_profile()
        try:
            for given in profile:
                if given.values:
                    made.set_shape_input(given.input, list(given.min), list(given.opt), list(given.max))
                else:
                    made.set_shape(given.input, given.min, given.opt, given.max)
            index = config.add_optimization_profile(made)
        except (RuntimeError, TypeError) as error:
            raise JobError(
                Reason.INVALID_PROFILE, f"build.profiles[{number}]: {explain.clean(str(error))}"
            ) from error
        if index < 0:
            raise self._failure()

    def _open_cache(self, config: Any) -> _Cache | None:
        if not self._task.timing_cache or self._api.features.names_targets:
            return None  # TensorRT for RTX times nothing
        where = timing_cache.at(
            Layout(self._task.repository), version=self._api.version, target=self._task.target
        )
        return _Cache(config, where, self._task.place)

    def _build(self, builder: Any, network: Any, config: Any, cache: _Cache | None) -> plan_file.PlanFile:
        with self._progress.step("build"), plan_file.create(self._task.place / store.PLAN_FILE) as plan:
            if self._api.features.writes_streams:
                writer = callbacks.writer(self._trt, plan)
                done = builder.build_serialized_network_to_stream(network, config, writer)
            else:
                made = builder.build_serialized_network(network, config)
                done = made is not None
                if done:
                    plan.take(memoryview(made))
        self._teller.finish()
        if self._stop.requested:
            if cache:
                cache.keep()  # what was timed is not lost
            raise JobError(Reason.CANCELLED, "the build was told to stop; the next attempt starts afresh")
        if not done:
            raise self._failure()
        return plan

    def _failure(self) -> JobError:
        return explain.build_failure(self._errors, version=self._api.version, options=self._task.options)

    def _inspect(self) -> tuple[int | None, Mapping[str, int]]:
        """Load the plan on the GPU that it was built on: what is published does load."""
        if self._gpu is None:
            return None, {}
        with self._progress.step("inspect"), _mapped(self._task.place / store.PLAN_FILE) as content:
            engine = self._trt.Runtime(self._logger).deserialize_cuda_engine(content)
            if engine is None:
                raise self._failure()
            inspector = engine.create_engine_inspector()
            described = inspector.get_engine_information(self._trt.LayerInformationFormat.JSON)
            return int(engine.device_memory_size_v2), count_layers(described)


class _Cache:
    """The timing cache of one build."""

    def __init__(self, config: Any, where: timing_cache.CacheFile, place: Path) -> None:
        self._config, self._where, self._place = config, where, place
        self._loaded = where.load()
        if not self._set(self._loaded):  # of another driver, say
            self._loaded = b""
            self._set(b"")

    def keep(self) -> str:
        """Merge what was timed into the file on the volume; returns what was done."""
        began = "begun" if not self._loaded else "used"
        return f"{began}, {self._where.merge(self._combine, staging=self._place)}"

    def _set(self, timings: bytes) -> bool:
        cache = self._config.create_timing_cache(timings)
        return cache is not None and bool(self._config.set_timing_cache(cache, ignore_mismatch=False))

    def _combine(self, standing: bytes) -> bytes:
        ours = self._config.get_timing_cache()
        if ours is None:
            return standing
        if standing and standing != self._loaded:  # another build was faster
            theirs = self._config.create_timing_cache(standing)
            if theirs is not None:
                ours.combine(theirs, ignore_mismatch=False)
        memory = ours.serialize()
        return standing if memory is None else bytes(memory)


def count_layers(described: str) -> Mapping[str, int]:
    """Return how many layers of each type an engine has, from the inspector's JSON."""
    try:
        layers = json.loads(described)["Layers"]
    except (ValueError, KeyError, TypeError):
        return {}
    kinds = (str(layer.get("LayerType", "layer")) if isinstance(layer, dict) else "layer" for layer in layers)
    return dict(Counter(kinds).most_common())


@contextlib.contextmanager
def _mapped(path: Path) -> Iterator[mmap.mmap]:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        yield content
