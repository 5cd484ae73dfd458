"""A prepared model made into a plan, as a compile job does, and what TensorRT's parser says of it."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from corpus import parser
from engine_builder import compile as compiles
from engine_builder import store
from engine_builder.contract import CompileOptions, ProfileInput, Signature, StoreManifest, Target
from engine_builder.errors import JobError
from engine_builder.progress import Progress
from engine_builder.volume import Layout

if TYPE_CHECKING:
    from corpus.case import Outcome
    from corpus.parser import Said
    from corpus.wheel import Arrays, WheelModel

MAX_BATCH_SIZE = 16
"""What a model gets whose batch alone is free."""
_EVERY = ("8.6", "8.9")
TARGETS = {"FP32": _EVERY, "FP16": ("7.5", *_EVERY), "INT8": _EVERY}
"""Compute capabilities by precision. TensorRT for RTX has no FP32 matrix products for 7.5."""
COLUMNS = [f"{precision} {target}" for precision, targets in TARGETS.items() for target in targets]


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What came of compiling a prepared model for one compute capability."""

    model: str
    precision: str
    target: str
    reason: str
    message: str
    seconds: float
    said: Said

    @property
    def column(self) -> str:
        """Return where it is counted."""
        return f"{self.precision} {self.target}"


def run(model: WheelModel, prepared: Outcome) -> Iterator[Compiled]:
    """Compile a prepared model for every target of its precision."""
    if prepared.entry is None:
        return
    layout = Layout(prepared.entry.parent.parent)
    manifest = store.read_manifest(layout, prepared.entry.name)
    if manifest is None:
        raise FileNotFoundError(f"{prepared.entry} has no MANIFEST")
    said = parser.ask(prepared.entry / store.MODEL_FILE)
    options = _options(manifest, said, model.inputs(), prepared.precision)
    for number, target in enumerate(TARGETS[prepared.precision], start=1):
        began = time.monotonic()
        reason, message = _compile(layout, manifest, options, Target("", target), number)
        seconds = time.monotonic() - began
        yield Compiled(model.name, prepared.precision, target, reason, message, seconds, said)


def _compile(
    layout: Layout, prepared: StoreManifest, options: CompileOptions, target: Target, number: int
) -> tuple[str, str]:
    request = compiles.CompileRequest(
        repository=layout.root,
        engine=f"tensorrt-{number:016x}",
        key=f"{number:064x}",
        prepared=prepared.engine,
        staging_uid="corpus",
        options=options,
        target=target,
        compiler=parser.COMPILER,
    )
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # the children tell their steps
            report = compiles.compile_engine(request, Progress(quiet=True))
    except JobError as error:
        return error.reason.value, error.message
    return report.reason.value, report.message


def _options(manifest: StoreManifest, said: Said, inputs: Arrays | None, precision: str) -> CompileOptions:
    """Ask for what a user would: the batch alone, or profiles of the shapes that requests have."""
    if not said.shape_inputs and _free_in_the_batch_alone(manifest.signature):
        return CompileOptions(max_batch_size=MAX_BATCH_SIZE, precision=precision)
    profile = tuple(_ranges(manifest, said, inputs or {}))
    return CompileOptions(profiles=(profile,) if profile else (), precision=precision)


def _free_in_the_batch_alone(signature: Signature) -> bool:
    return signature.has_batch and all(min(t.shape[1:], default=0) >= 0 for t in signature.inputs)


def _ranges(manifest: StoreManifest, said: Said, inputs: Arrays) -> Iterator[ProfileInput]:
    """Yield the one shape of each free input, and the one value of each that holds a shape."""
    for tensor in manifest.signature.inputs:
        if tensor.name in said.shape_inputs:
            numbers = tuple(map(int, inputs[tensor.name].ravel()))
        elif min(tensor.shape, default=0) < 0:
            known = inputs[tensor.name].shape if tensor.name in inputs else None
            numbers = tuple(known or manifest.sample_shapes[tensor.name])
        else:
            continue
        largest = tuple(max(number, 1) for number in numbers)  # nothing can be tuned for an empty input
        yield ProfileInput(tensor.name, numbers, largest, largest)
