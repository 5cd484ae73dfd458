"""Optimization profiles: the shapes an engine is made for, checked before TensorRT sees them. Pure.

TensorRT takes an unknown input in silence, raises on some numbers and swallows others; so everything is
checked here, and a fault names profile, input and dimension.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NoReturn

from engine_builder.contract import Reason
from engine_builder.errors import JobError

if TYPE_CHECKING:
    from engine_builder.contract import CompileOptions, ProfileInput, Signature, Tensor

_LARGEST_DIMENSION = 2**31 - 1
_INTEGERS = frozenset({"INT32", "INT64"})


@dataclasses.dataclass(frozen=True)
class Range:
    """What one input may be: its shapes, or the values of an input that itself holds a shape."""

    input: str
    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]
    values: bool = False


Profile = tuple[Range, ...]


def resolve(
    signature: Signature, options: CompileOptions, *, shape_inputs: Collection[str] = ()
) -> tuple[Profile, ...]:
    """Return the profiles to build with; none where every shape is fixed.

    `shape_inputs` are the inputs whose values TensorRT takes for a shape.

    Raises:
        JobError: `ProfileMissing`, `InvalidProfile`, `BatchTooLarge`.
    """
    if not options.profiles:
        return _of_the_batch(signature, options, shape_inputs)
    found = tuple(
        _profile(f"build.profiles[{number}]", inputs, signature, shape_inputs)
        for number, inputs in enumerate(options.profiles)
    )
    if signature.has_batch and options.max_batch_size:
        _check_batches(found, options.max_batch_size, shape_inputs)
    return found


def assumed_shape_inputs(signature: Signature, options: CompileOptions) -> frozenset[str]:
    """Return the inputs that the profiles treat as shapes; only TensorRT knows whether they are.

    With them `resolve` finds what is wrong before a GPU is held for it.
    """
    fixed = {t.name: t.shape for t in signature.inputs if t.datatype in _INTEGERS and _may_hold_values(t)}
    listed = (entry for profile in options.profiles for entry in profile if entry.name in fixed)
    return frozenset(e.name for e in listed if {e.min, e.opt, e.max} != {fixed[e.name]})


def _may_hold_values(tensor: Tensor) -> bool:
    return len(tensor.shape) <= 1 and not _free(tensor)


def _of_the_batch(
    signature: Signature, options: CompileOptions, shape_inputs: Collection[str]
) -> tuple[Profile, ...]:
    """Make a profile where the batch alone is free: from 1 to the largest, tuned for the largest."""
    for tensor in signature.inputs:
        if tensor.name in shape_inputs:
            _fail(
                Reason.PROFILE_MISSING,
                f"input {_shown(tensor)} holds a shape: list its smallest, usual and largest values in "
                "build.profiles",
            )
    free = [(tensor, _free(tensor)) for tensor in signature.inputs if _free(tensor)]
    if not free:
        return ()
    for tensor, dimensions in free:
        if dimensions != [0] or not signature.has_batch or not options.max_batch_size:
            _fail(Reason.PROFILE_MISSING, _needs_a_profile(tensor, dimensions, signature))
    batch = options.max_batch_size
    return (tuple(Range(t.name, (1, *t.shape[1:]), *2 * ((batch, *t.shape[1:]),)) for t, _ in free),)


def _needs_a_profile(tensor: Tensor, dimensions: list[int], signature: Signature) -> str:
    advice = "list its smallest, usual and largest shape in build.profiles"
    if dimensions != [0]:
        beside = "besides the batch " if signature.has_batch else ""
        numbers = ", ".join(str(d) for d in dimensions if d or not signature.has_batch)
        return f"input {_shown(tensor)} has free dimensions {beside}({numbers}): {advice}"
    if not signature.has_batch:
        other = next(t for t in (*signature.inputs, *signature.outputs) if t.shape[:1] != (-1,))
        return (
            f"dimension 0 of input {_shown(tensor)} is free and no batch, since {_shown(other)} has none: "
            f"{advice}"
        )
    return f"the batch of input {_shown(tensor)} is free: set build.maxBatchSize, or {advice}"


def _profile(
    where: str, inputs: Sequence[ProfileInput], signature: Signature, shape_inputs: Collection[str]
) -> Profile:
    known = {tensor.name: tensor for tensor in signature.inputs}
    given: dict[str, Range] = {}
    for entry in inputs:
        tensor = known.get(entry.name)
        if tensor is None:
            have = ", ".join(map(_shown, signature.inputs))
            _fail(
                Reason.INVALID_PROFILE,
                f"{where} names input {entry.name!r}, which the model lacks: it has {have}",
            )
        if entry.name in given:
            _fail(Reason.INVALID_PROFILE, f"{where} names input {entry.name!r} twice")
        given[entry.name] = _range(f"{where}, input {_shown(tensor)}", entry, tensor, shape_inputs)
    for tensor in signature.inputs:
        if tensor.name not in given and (_free(tensor) or tensor.name in shape_inputs):
            what = "holds a shape" if tensor.name in shape_inputs else f"is free in {_listed(_free(tensor))}"
            _fail(
                Reason.PROFILE_MISSING,
                f"{where} says nothing of input {_shown(tensor)}, which {what}: list it",
            )
    if signature.has_batch:
        _check_one_batch(where, list(given.values()))
    return tuple(given.values())


def _range(where: str, entry: ProfileInput, tensor: Tensor, shape_inputs: Collection[str]) -> Range:
    values = entry.name in shape_inputs
    length = math.prod(tensor.shape) if values else len(tensor.shape)
    what = "values" if values else "dimensions"
    for kind, numbers in (("min", entry.min), ("opt", entry.opt), ("max", entry.max)):
        if len(numbers) != length:
            _fail(
                Reason.INVALID_PROFILE,
                f"{where}: {kind} {list(numbers)} has {len(numbers)} {what}, not {length}",
            )
    for axis, (low, usual, high) in enumerate(zip(entry.min, entry.opt, entry.max, strict=True)):
        if not low <= usual <= high:
            _fail(
                Reason.INVALID_PROFILE,
                f"{where}: {what[:-1]} {axis} has min {low}, opt {usual}, max {high}: they must not descend",
            )
        if not values:
            _check_dimension(where, axis, tensor.shape[axis], low=low, usual=usual, high=high)
    return Range(entry.name, entry.min, entry.opt, entry.max, values=values)


def _check_dimension(where: str, axis: int, size: int, *, low: int, usual: int, high: int) -> None:
    """Check what ascends already."""
    if low < 0:
        _fail(Reason.INVALID_PROFILE, f"{where}: min of dimension {axis} is {low}, which no dimension can be")
    if size >= 0 and not low == high == size:
        _fail(
            Reason.INVALID_PROFILE,
            f"{where}: dimension {axis} is always {size}, and the profile has "
            f"min {low}, opt {usual}, max {high}: write {size} three times",
        )
    if size < 0 and usual < 1:
        _fail(
            Reason.INVALID_PROFILE, f"{where}: opt of dimension {axis} is 0, and nothing can be tuned for it"
        )
    if high > _LARGEST_DIMENSION:
        _fail(Reason.INVALID_PROFILE, f"{where}: max of dimension {axis} is {high}: 2^31 - 1 is the most")


def _check_one_batch(where: str, ranges: Sequence[Range]) -> None:
    shapes = [r for r in ranges if not r.values]
    for other in shapes[1:]:
        first = shapes[0]
        if [s[0] for s in (first.min, first.opt, first.max)] != [
            s[0] for s in (other.min, other.opt, other.max)
        ]:
            _fail(
                Reason.INVALID_PROFILE,
                f"{where}: inputs {first.input!r} and {other.input!r} have batches of their own "
                f"({first.min[0]}, {first.opt[0]}, {first.max[0]} and {other.min[0]}, {other.opt[0]}, "
                f"{other.max[0]}), and a request has one: write the same for both",
            )


def _check_batches(profiles: Sequence[Profile], most: int, shape_inputs: Collection[str]) -> None:
    """Check the profiles against build.maxBatchSize: Triton sends batches up to that."""
    largest = {
        number: max((r.max[0] for r in profile if r.input not in shape_inputs), default=most)
        for number, profile in enumerate(profiles)
    }
    for number, batch in largest.items():
        if batch > most:
            _fail(
                Reason.BATCH_TOO_LARGE,
                f"build.profiles[{number}] has batches of up to {batch}, and build.maxBatchSize is {most}: "
                f"set build.maxBatchSize to {batch}, or the profile's max to {most}",
            )
    if max(largest.values()) < most:
        _fail(
            Reason.BATCH_TOO_LARGE,
            f"build.maxBatchSize {most} is beyond build.profiles, whose largest batch is "
            f"{max(largest.values())}: set both to the same",
        )


def _free(tensor: Tensor) -> list[int]:
    return [axis for axis, size in enumerate(tensor.shape) if size < 0]


def _shown(tensor: Tensor) -> str:
    return f"{tensor.name!r} ({tensor.datatype} {list(tensor.shape)})"


def _listed(dimensions: Sequence[int]) -> str:
    return f"dimension{'s' if len(dimensions) > 1 else ''} {', '.join(map(str, dimensions))}"


def _fail(reason: Reason, message: str) -> NoReturn:
    raise JobError(reason, message)
