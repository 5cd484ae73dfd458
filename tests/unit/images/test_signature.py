from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from types import ModuleType


def config(**changes: Any) -> dict[str, Any]:
    return {
        "max_batch_size": 8,
        "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": ["3", "-1"]}],
        "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": ["1000"]}],
    } | changes


def tensors(signature: ModuleType, **dims: tuple[int, ...]) -> Any:
    wanted = {"x": (-1, 3, 224), "y": (-1, 1000)} | dims
    tensor = signature.Tensor
    return {
        "inputs": [tensor("x", "TYPE_FP32", wanted["x"])],
        "outputs": [tensor("y", "TYPE_FP32", wanted["y"])],
    }


def test_a_fitting_configuration_is_accepted(signature: ModuleType) -> None:
    signature.check(config(), **tensors(signature))


def test_without_batching_the_shape_is_whole(signature: ModuleType) -> None:
    outputs = [{"name": "y", "data_type": "TYPE_FP32", "dims": ["1", "1000"]}]
    inputs = [{"name": "x", "data_type": "TYPE_FP32", "dims": ["1", "3", "224"]}]
    wanted = config(max_batch_size=0, input=inputs, output=outputs)
    signature.check(wanted, **tensors(signature, x=(1, 3, 224), y=(1, 1000)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input": []}, "inputs that the configuration lacks: x"),
        ({"output": [{"name": "z", "data_type": "TYPE_FP32", "dims": ["1"]}]}, "no output 'z'; it has: y"),
        (
            {"output": [{"name": "y", "data_type": "TYPE_FP16", "dims": ["1000"]}]},
            "TYPE_FP32 in the model and TYPE_FP16",
        ),
        (
            {"output": [{"name": "y", "data_type": "TYPE_FP32", "dims": ["10"]}]},
            r"dims \[1000\] in the model and \[10\]",
        ),
        ({"output": [{"name": "y", "data_type": "TYPE_FP32", "dims": ["1", "1000"]}]}, "dims"),
    ],
)
def test_a_difference_is_named(signature: ModuleType, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(signature.UnservableModelError, match=message):
        signature.check(config(**changes), **tensors(signature))


def test_batching_needs_a_free_first_dimension(signature: ModuleType) -> None:
    with pytest.raises(
        signature.UnservableModelError, match=r"max_batch_size is above 0.*'x'.*\[1, 3, 224\]"
    ):
        signature.check(config(), **tensors(signature, x=(1, 3, 224)))


def test_completion_leaves_the_batch_dimension_to_triton(signature: ModuleType) -> None:
    found = tensors(signature)["inputs"]
    assert signature.complete(found, batched=True)[0]["dims"] == [3, 224]
    assert signature.complete(found, batched=False)[0]["dims"] == [-1, 3, 224]
