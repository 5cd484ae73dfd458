from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_builder.compilers import profiles
from engine_builder.compilers.profiles import Range
from engine_builder.contract import CompileOptions, ProfileInput, Reason, Signature, Tensor
from engine_builder.errors import JobError

IMAGES = Tensor("images", "FP32", (-1, 3, -1, -1))
SCORES = Tensor("scores", "FP32", (-1, 10))
FLAT = Tensor("x", "FP32", (-1, 4))


def a_signature(*inputs: Tensor, outputs: tuple[Tensor, ...] = (SCORES,)) -> Signature:
    return Signature(inputs or (FLAT,), outputs)


def options(*entries: ProfileInput, batch: int = 0, **kwargs: Any) -> CompileOptions:
    return CompileOptions(max_batch_size=batch, profiles=(entries,) if entries else (), **kwargs)


def images(low: Any = (1, 3, 320, 320), usual: Any = (8, 3, 640, 640), high: Any = (16, 3, 640, 640)) -> Any:
    return ProfileInput("images", tuple(low), tuple(usual), tuple(high))


def fault(signature: Signature, given: CompileOptions, **kwargs: Any) -> JobError:
    with pytest.raises(JobError) as caught:
        profiles.resolve(signature, given, **kwargs)
    return caught.value


def test_a_model_of_fixed_shapes_needs_no_profile() -> None:
    fixed = a_signature(Tensor("x", "FP32", (1, 4)), outputs=(Tensor("y", "FP32", (1, 4)),))
    assert profiles.resolve(fixed, options(batch=16)) == ()


def test_the_largest_batch_becomes_the_profile_where_only_the_batch_is_free() -> None:
    signature = a_signature(FLAT, Tensor("mask", "BOOL", (-1,)))
    assert profiles.resolve(signature, options(batch=16)) == (
        (Range("x", (1, 4), (16, 4), (16, 4)), Range("mask", (1,), (16,), (16,))),
    )


def test_a_profile_is_taken_as_it_is_written() -> None:
    found = profiles.resolve(a_signature(IMAGES), options(images(), batch=16))
    assert found == ((Range("images", (1, 3, 320, 320), (8, 3, 640, 640), (16, 3, 640, 640)),),)


def test_several_profiles_keep_their_order_and_the_largest_batch_counts() -> None:
    small = images((1, 3, 32, 32), (1, 3, 32, 32), (2, 3, 32, 32))
    given = CompileOptions(max_batch_size=16, profiles=((small,), (images(),)))
    assert [profile[0].max[0] for profile in profiles.resolve(a_signature(IMAGES), given)] == [2, 16]


@pytest.mark.parametrize(
    ("signature", "given", "words"),
    [
        (a_signature(IMAGES), options(batch=8), ["'images'", "besides the batch (2, 3)", "build.profiles"]),
        (a_signature(FLAT), options(), ["'x'", "set build.maxBatchSize"]),
        (
            a_signature(FLAT, Tensor("limit", "FP32", (1,))),
            options(batch=8),
            ["dimension 0 of input 'x'", "no batch", "'limit' (FP32 [1])"],
        ),
        (
            a_signature(Tensor("x", "FP32", (2, -1)), outputs=(Tensor("y", "FP32", (2, -1)),)),
            options(batch=8),
            ["free dimensions (1)"],
        ),
        (
            a_signature(IMAGES, FLAT),
            options(images(), batch=16),
            ["build.profiles[0] says nothing of", "'x'"],
        ),
    ],
)
def test_a_free_dimension_without_a_profile_is_named(
    signature: Signature, given: CompileOptions, words: list[str]
) -> None:
    error = fault(signature, given)
    assert error.reason is Reason.PROFILE_MISSING
    for word in words:
        assert word in error.message


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (ProfileInput("imgs", (1,), (1,), (1,)), ["names input 'imgs'", "'images' (FP32 [-1, 3, -1, -1])"]),
        (images((1, 3, 320)), ["min [1, 3, 320] has 3 dimensions, not 4"]),
        (images(high=(16, 3, 640, 640, 1)), ["max", "has 5 dimensions, not 4"]),
        (images((9, 3, 320, 320)), ["dimension 0 has min 9, opt 8, max 16"]),
        (images(usual=(8, 3, 640, 641)), ["dimension 3 has min 320, opt 641, max 640"]),
        (images((-1, 3, 320, 320)), ["min of dimension 0 is -1"]),
        (images((1, 1, 320, 320)), ["dimension 1 is always 3", "min 1, opt 3, max 3", "write 3 three times"]),
        (images((1, 3, 0, 1), (1, 3, 0, 1), (16, 3, 1, 1)), ["opt of dimension 2 is 0"]),
        (images(high=(16, 3, 640, 2**31)), ["max of dimension 3 is 2147483648"]),
    ],
)
def test_a_profile_that_cannot_be_is_told_with_input_and_dimension(
    entry: ProfileInput, words: list[str]
) -> None:
    error = fault(a_signature(IMAGES), options(entry))
    assert error.reason is Reason.INVALID_PROFILE
    for word in words:
        assert word in error.message


def test_an_input_is_listed_once() -> None:
    assert "twice" in fault(a_signature(IMAGES), options(images(), images())).message


def test_inputs_of_one_request_have_one_batch() -> None:
    error = fault(
        a_signature(IMAGES, FLAT), options(images(), ProfileInput("x", (1, 4), (4, 4), (8, 4)), batch=16)
    )
    assert error.reason is Reason.INVALID_PROFILE
    assert "(1, 8, 16 and 1, 4, 8)" in error.message


@pytest.mark.parametrize(
    ("batch", "words"),
    [(8, ["up to 16", "maxBatchSize is 8"]), (20, ["maxBatchSize 20 is beyond", "largest batch is 16"])],
)
def test_profiles_and_the_largest_batch_say_the_same(batch: int, words: list[str]) -> None:
    error = fault(a_signature(IMAGES), options(images(), batch=batch))
    assert error.reason is Reason.BATCH_TOO_LARGE
    for word in words:
        assert word in error.message


SIZES = Tensor("sizes", "INT64", (2,))


def test_an_input_that_holds_a_shape_has_values() -> None:
    signature = a_signature(FLAT, SIZES, outputs=(Tensor("y", "FP32", (-1, -1)),))
    given = options(ProfileInput("x", (1, 4), (2, 4), (4, 4)), ProfileInput("sizes", (1, -1), (2, 2), (4, 4)))
    (found,) = profiles.resolve(signature, given, shape_inputs={"sizes"})
    assert found[1] == Range("sizes", (1, -1), (2, 2), (4, 4), values=True)
    missing = fault(signature, options(batch=4), shape_inputs={"sizes"})
    assert (missing.reason, "holds a shape" in missing.message) == (Reason.PROFILE_MISSING, True)
    short = fault(signature, options(ProfileInput("sizes", (1,), (1,), (1,))), shape_inputs={"sizes"})
    assert "has 1 values, not 2" in short.message


def test_values_are_told_from_shapes_before_tensorrt_is_asked() -> None:
    signature = a_signature(FLAT, SIZES)
    values = options(ProfileInput("sizes", (1, 1), (2, 2), (4, 4)))
    shape = options(ProfileInput("sizes", (2,), (2,), (2,)))
    assert profiles.assumed_shape_inputs(signature, values) == {"sizes"}
    assert profiles.assumed_shape_inputs(signature, shape) == set()
    assert profiles.assumed_shape_inputs(signature, options(batch=2)) == set()


sizes = st.integers(-2, 40)


@given(
    shape=st.lists(st.sampled_from([-1, 1, 3]), min_size=1, max_size=4),
    numbers=st.lists(st.lists(sizes, min_size=0, max_size=5), min_size=3, max_size=3),
    batch=st.integers(0, 40),
)
def test_what_passes_is_what_tensorrt_takes(shape: list[int], numbers: list[list[int]], batch: int) -> None:
    """Either a fault of the user's with words, or a range in every dimension that holds the model's own."""
    signature = Signature((Tensor("x", "FP32", tuple(shape)),), (Tensor("y", "FP32", tuple(shape)),))
    entry = ProfileInput("x", *(tuple(n) for n in numbers))
    found: Range | JobError
    try:
        ((found,),) = profiles.resolve(signature, options(entry, batch=batch))
    except JobError as error:
        found = error
    if isinstance(found, JobError):
        assert found.reason in {Reason.INVALID_PROFILE, Reason.BATCH_TOO_LARGE}
        assert "'x'" in found.message or "maxBatchSize" in found.message
        return
    assert len(found.min) == len(found.opt) == len(found.max) == len(shape)
    for size, low, usual, high in zip(shape, found.min, found.opt, found.max, strict=True):
        assert 0 <= low <= usual <= high
        assert size in {-1, low}
        assert size == -1 or low == high
    if shape[0] == -1 and batch:
        assert found.max[0] == batch


@given(batch=st.integers(1, 4096), rest=st.lists(st.integers(1, 9), max_size=3))
def test_the_profile_of_a_batch_is_itself_valid(batch: int, rest: list[int]) -> None:
    tensor = Tensor("x", "FP32", (-1, *rest))
    signature = Signature((tensor,), (SCORES,))
    ((made,),) = profiles.resolve(signature, options(batch=batch))
    entry = ProfileInput(made.input, made.min, made.opt, made.max)
    assert profiles.resolve(signature, options(entry, batch=batch)) == ((made,),)
