from __future__ import annotations

import subprocess
import sys

from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import ModelBuilder, a_model
from tests.observed import a_signature, a_tensor, model
from tritonclient.grpc import model_config_pb2 as pb

from engine_builder.contract import CONFIG_PARAMETER, Signature, Tensor
from triton_operator.plan import model_config
from triton_operator.plan.model_config import ModelConfig

DATATYPES = ["BOOL", "UINT8", "INT32", "INT64", "FP16", "FP32", "FP64", "BF16", "BYTES"]

dims = st.integers(min_value=-1, max_value=8).filter(lambda dim: dim != 0)
shapes = st.lists(dims, max_size=4).map(tuple)
words = st.text(alphabet='abcxyz_/:.0 é"\\\n', min_size=1, max_size=8)
tensors = st.builds(Tensor, words, st.sampled_from(DATATYPES), shapes)
signatures = st.builds(
    Signature,
    st.lists(tensors, min_size=1, max_size=3).map(tuple),
    st.lists(tensors, min_size=1, max_size=3).map(tuple),
)
servings = st.fixed_dictionaries(
    {},
    optional={
        "maxBatchSize": st.integers(0, 64),
        "dynamicBatching": st.fixed_dictionaries(
            {"preferredBatchSizes": st.lists(st.integers(1, 64), max_size=3)},
            optional={"maxQueueDelayMicroseconds": st.integers(0, 1000)},
        ),
        "instances": st.lists(
            st.fixed_dictionaries(
                {"count": st.integers(1, 4), "kind": st.sampled_from(["Auto", "CPU", "GPU"])}
            ),
            max_size=2,
        ),
        "parameters": st.dictionaries(words, words, max_size=3),
    },
)
numbers = st.sets(st.integers(1, 2**31 - 1), min_size=1, max_size=4)


def rendered(
    serving: dict[str, object] | None = None,
    *,
    signature: Signature | None = None,
    versions: set[int] | None = None,
    builder: ModelBuilder | None = None,
) -> ModelConfig:
    builder = builder or a_model().with_version(1, "pvc://sources/1.onnx")
    spec = model(builder.with_spec(serving=serving or {})).spec
    return model_config.render(
        name="model", spec=spec, signature=signature or a_signature(), versions=versions or {1}
    )


def read(config: ModelConfig) -> pb.ModelConfig:
    return text_format.Parse(config.text, pb.ModelConfig())


@given(servings, signatures, numbers)
def test_what_is_written_reads_back_as_what_was_meant(
    serving: dict[str, object], signature: Signature, versions: set[int]
) -> None:
    config = rendered(serving, signature=signature, versions=versions)
    found = read(config)
    assert (found.name, found.backend) == ("model", "onnxruntime")
    assert list(found.version_policy.specific.versions) == sorted(versions)
    assert found.parameters[CONFIG_PARAMETER].string_value == config.fingerprint
    asked = serving.get("parameters", {})
    assert {k: v.string_value for k, v in found.parameters.items() if k != CONFIG_PARAMETER} == asked
    assert [i.name for i in found.input] == [t.name for t in signature.inputs]
    assert [o.name for o in found.output] == [t.name for t in signature.outputs]


@given(servings, signatures)
def test_batch_and_dims_together_are_the_models_own_shapes(
    serving: dict[str, object], signature: Signature
) -> None:
    found = read(rendered(serving, signature=signature))
    for tensor, written in zip(
        [*signature.inputs, *signature.outputs], [*found.input, *found.output], strict=True
    ):
        own = list(written.reshape.shape) if written.HasField("reshape") else list(written.dims)
        assert ([-1] if found.max_batch_size else []) + own == list(tensor.shape)
        assert len(written.dims) >= 1


@given(servings, servings, signatures, signatures, numbers, numbers)
def test_the_fingerprint_tells_configurations_apart_but_not_versions(  # noqa: PLR0917 - drawn
    serving: dict[str, object],
    other: dict[str, object],
    signature: Signature,
    second: Signature,
    versions: set[int],
    more: set[int],
) -> None:
    first = rendered(serving, signature=signature, versions=versions)
    assert rendered(serving, signature=signature, versions=more).fingerprint == first.fingerprint
    another = rendered(other, signature=second, versions=versions)
    assert (another.text == first.text) == (another.fingerprint == first.fingerprint)


def test_the_fingerprint_is_the_same_in_every_process() -> None:
    code = (
        "from tests.unit.plan import test_model_config as t;"
        "print(t.rendered({'parameters': {'b': '2', 'a': '1', 'c': '3'}}).fingerprint)"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert found == {rendered({"parameters": {"a": "1", "c": "3", "b": "2"}}).fingerprint}


def test_the_batch_is_the_smallest_build_unless_the_spec_says_otherwise() -> None:
    builder = a_model().with_version(1, "pvc://s/1.onnx", max_batch_size=20)
    builder = builder.with_version(2, "pvc://s/2.onnx", max_batch_size=8)
    assert read(rendered(builder=builder)).max_batch_size == 8
    assert read(rendered({"maxBatchSize": 4}, builder=builder)).max_batch_size == 4
    assert read(rendered({"maxBatchSize": 0}, builder=builder)).max_batch_size == 0


def test_a_model_with_a_fixed_first_dimension_is_not_batched() -> None:
    signature = a_signature(a_tensor("x", 1, 3), outputs=(a_tensor("y", -1, 2),))
    found = read(rendered({"dynamicBatching": {"preferredBatchSizes": [4]}}, signature=signature))
    assert found.max_batch_size == 0
    assert not found.HasField("dynamic_batching")
    assert list(found.input[0].dims) == [1, 3]
    assert list(found.output[0].dims) == [-1, 2]


def test_a_scalar_is_a_vector_of_one_that_is_reshaped() -> None:
    batched = a_signature(a_tensor("x", -1), outputs=(a_tensor("y", -1, 2),))
    found = read(rendered(signature=batched)).input[0]
    assert (list(found.dims), found.HasField("reshape"), list(found.reshape.shape)) == ([1], True, [])
    alone = Signature(inputs=(Tensor("x", "INT64", ()),), outputs=(a_tensor("y", 2),))
    found = read(rendered(signature=alone)).input[0]
    assert (list(found.dims), found.HasField("reshape"), list(found.reshape.shape)) == ([1], True, [])


def test_every_type_of_triton_has_its_name_in_a_configuration() -> None:
    inputs = tuple(a_tensor(datatype, -1, 2, datatype=datatype) for datatype in DATATYPES)
    found = read(rendered(signature=a_signature(*inputs)))
    named = {i.name: pb.DataType.Name(i.data_type) for i in found.input}
    assert named == {d: "TYPE_STRING" if d == "BYTES" else f"TYPE_{d}" for d in DATATYPES}


def test_serving_becomes_dynamic_batching_and_instances() -> None:
    serving = {
        "maxBatchSize": 16,
        "dynamicBatching": {"preferredBatchSizes": [8, 16], "maxQueueDelayMicroseconds": 500},
        "instances": [{"count": 2, "kind": "CPU"}, {}],
    }
    found = read(rendered(serving))
    assert list(found.dynamic_batching.preferred_batch_size) == [8, 16]
    assert found.dynamic_batching.max_queue_delay_microseconds == 500
    kinds = [(g.count, pb.ModelInstanceGroup.Kind.Name(g.kind)) for g in found.instance_group]
    assert kinds == [(2, "KIND_CPU"), (1, "KIND_AUTO")]
