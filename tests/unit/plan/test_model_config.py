from __future__ import annotations

import re
import subprocess
import sys

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import ModelBuilder, a_model
from tests.observed import a_signature, a_tensor, model
from tritonclient.grpc import model_config_pb2 as pb

from engine_builder.contract import CONFIG_PARAMETER, Signature, Tensor
from triton_operator.plan import model_config
from triton_operator.plan.model_config import CandidateConfig, ModelConfig, Shapes
from triton_operator.resources.inference_model import InferenceModelSpec

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
        "warmup": st.booleans(),
        "labels": st.dictionaries(words, st.lists(words, min_size=1, max_size=3), max_size=2),
    },
)
numbers = st.sets(st.integers(1, 2**31 - 1), min_size=1, max_size=4)


def rendered(
    serving: dict[str, object] | None = None,
    *,
    signature: Signature | None = None,
    versions: set[int] | None = None,
    builder: ModelBuilder | None = None,
    sample_shapes: Shapes | None = None,
) -> ModelConfig:
    return model_config.render(
        name="model",
        spec=spec_of(serving, builder),
        signature=signature or a_signature(),
        versions=versions or {1},
        sample_shapes=sample_shapes,
    )


def spec_of(serving: dict[str, object] | None, builder: ModelBuilder | None = None) -> InferenceModelSpec:
    builder = builder or a_model().with_version(1, "pvc://sources/1.onnx")
    return model(builder.with_spec(serving=serving or {})).spec


def read(config: ModelConfig | str) -> pb.ModelConfig:
    return text_format.Parse(config if isinstance(config, str) else config.text, pb.ModelConfig())


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
    assert read(rendered(builder=builder, versions={1, 2})).max_batch_size == 8
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


# -- warm-up ---------------------------------------------------------------------------------------

CLASSIFIER = a_signature(a_tensor("x", -1, 3), outputs=(a_tensor("scores", -1, 2),))


def warm_ups(
    signature: Signature, sample_shapes: Shapes | None = None, **serving: object
) -> list[tuple[int, dict[str, list[int]]]]:
    """Return batch size and shapes of every request that Triton makes by itself."""
    found = read(rendered({"warmup": True, **serving}, signature=signature, sample_shapes=sample_shapes))
    return [
        (each.batch_size, {name: list(entry.dims) for name, entry in each.inputs.items()})
        for each in found.model_warmup
    ]


def test_no_model_is_warmed_up_unless_it_asks() -> None:
    assert not read(rendered(signature=CLASSIFIER)).model_warmup


def test_warm_up_takes_the_smallest_and_the_largest_batch() -> None:
    assert warm_ups(CLASSIFIER, maxBatchSize=8) == [(1, {"x": [3]}), (8, {"x": [3]})]
    assert warm_ups(CLASSIFIER, maxBatchSize=1) == [(1, {"x": [3]})]


def test_a_model_that_is_not_batched_is_warmed_up_with_its_whole_shape() -> None:
    fixed = a_signature(a_tensor("x", 1, 3), outputs=(a_tensor("y", 1, 2),))
    assert warm_ups(fixed) == [(1, {"x": [1, 3]})]
    assert warm_ups(CLASSIFIER, {"x": (4, 3)}, maxBatchSize=0) == [(1, {"x": [4, 3]})]


def test_open_sizes_are_those_of_a_sample() -> None:
    image = a_signature(a_tensor("image", -1, 3, -1, -1), a_tensor("n", -1, 1))
    shapes = {"image": (2, 9, 32, 48), "n": (2, 1)}
    assert warm_ups(image, shapes, maxBatchSize=4) == [
        (1, {"image": [3, 32, 48], "n": [1]}),
        (4, {"image": [3, 32, 48], "n": [1]}),
    ]


@pytest.mark.parametrize(
    "shapes",
    [None, {}, {"other": (2, 3, 32)}, {"image": (2, 3)}, {"image": (2, 3, 0)}, {"image": (2, 3, -1)}],
)
def test_a_model_whose_sizes_are_not_known_is_not_warmed_up(shapes: Shapes | None) -> None:
    assert warm_ups(a_signature(a_tensor("image", -1, 3, -1)), shapes) == []


def test_warm_up_sends_nothing_but_zeros_in_the_types_of_the_model() -> None:
    inputs = tuple(a_tensor(datatype, -1, 2, datatype=datatype) for datatype in DATATYPES)
    found = read(rendered({"warmup": True}, signature=a_signature(*inputs)))
    types = {tensor.name: tensor.data_type for tensor in found.input}
    for sample in found.model_warmup:
        assert {name: entry.data_type for name, entry in sample.inputs.items()} == types
        assert all(entry.WhichOneof("input_data_type") == "zero_data" for entry in sample.inputs.values())


def test_a_scalar_is_warmed_up_as_the_vector_that_it_is_in_a_request() -> None:
    assert warm_ups(a_signature(a_tensor("x", -1)), maxBatchSize=1) == [(1, {"x": [1]})]


@given(servings, signatures, numbers, st.dictionaries(words, shapes, max_size=3))
def test_warm_up_never_leaves_a_size_open(
    serving: dict[str, object], signature: Signature, versions: set[int], sample_shapes: Shapes
) -> None:
    config = rendered(
        {**serving, "warmup": True}, signature=signature, versions=versions, sample_shapes=sample_shapes
    )
    found = read(config)
    for sample in found.model_warmup:
        assert set(sample.inputs) == {tensor.name for tensor in found.input}
        assert all(size > 0 for entry in sample.inputs.values() for size in entry.dims)
        assert 1 <= sample.batch_size <= max(1, found.max_batch_size)


# -- labels ----------------------------------------------------------------------------------------


def labelled(*labels: str, output: str = "scores") -> ModelConfig:
    return rendered({"labels": {output: list(labels)}}, signature=CLASSIFIER)


def test_labels_stand_in_a_file_one_per_line() -> None:
    config = labelled("cat", "", "dog: big")
    ((name, text),) = config.files.items()
    assert text == "cat\n\ndog: big\n"
    assert read(config).output[0].label_filename == name
    assert rendered(signature=CLASSIFIER).files == {}


def test_other_labels_are_another_file_and_another_configuration() -> None:
    first, second = labelled("cat", "dog"), labelled("cat", "cow")
    assert first.files.keys() != second.files.keys()
    assert first.fingerprint != second.fingerprint
    assert labelled("cat", "dog") == first


def test_labels_of_what_is_no_output_are_named_and_left_out() -> None:
    serving: dict[str, object] = {"labels": {"scores": ["a"], "y": ["b"], "class": ["c"]}}
    assert model_config.unknown_labels(spec_of(serving), CLASSIFIER) == ("class", "y")
    assert model_config.unknown_labels(spec_of({}), CLASSIFIER) == ()
    assert rendered(serving, signature=CLASSIFIER).files == labelled("a").files


@given(st.sets(st.text(min_size=1, max_size=200), min_size=1, max_size=4))
def test_every_output_has_a_file_of_its_own_whatever_its_name(outputs: set[str]) -> None:
    tensors = tuple(a_tensor(name, -1, 2) for name in sorted(outputs))
    serving: dict[str, object] = {"labels": {name: ["same"] for name in outputs}}
    config = rendered(serving, signature=a_signature(outputs=tensors))
    assert len(config.files) == len(outputs)
    assert {output.label_filename for output in read(config).output} == config.files.keys()
    for name in config.files:
        assert re.fullmatch(r"labels_[A-Za-z0-9_-]{1,64}\.[0-9a-f]{12}\.txt", name)


# -- candidates ------------------------------------------------------------------------------------


def a_candidate(serving: dict[str, object] | None = None) -> CandidateConfig:
    return model_config.candidate(
        name="model.candidate", spec=spec_of(serving), signature=CLASSIFIER, version=7
    )


def test_a_candidate_in_the_tree_is_loaded_by_no_pod_that_starts() -> None:
    found = read(a_candidate().tree_text)
    assert found.version_policy.HasField("specific")  # without a policy Triton takes the latest
    assert list(found.version_policy.specific.versions) == []


def test_a_candidate_is_loaded_as_the_one_version_on_trial() -> None:
    config = a_candidate()
    assert list(read(config.load_text).version_policy.specific.versions) == [7]
    assert model_config.changes(config.tree_text, config.load_text) == ()
    for text in (config.tree_text, config.load_text):
        assert read(text).name == "model.candidate"
        assert read(text).parameters[CONFIG_PARAMETER].string_value == config.fingerprint


def test_a_candidate_takes_as_little_room_as_it_can_and_else_is_as_it_will_be_served() -> None:
    serving: dict[str, object] = {
        "maxBatchSize": 8,
        "dynamicBatching": {},
        "instances": [{"count": 4, "kind": "CPU"}, {"count": 2, "kind": "GPU"}],
        "parameters": {"threads": "2"},
        "warmup": True,
        "labels": {"scores": ["a", "b"]},
    }
    found = read(a_candidate(serving).load_text)
    assert [group.count for group in found.instance_group] == [1, 1]
    assert not found.model_warmup
    served = rendered(serving, signature=CLASSIFIER).text
    assert model_config.changes(served, a_candidate(serving).load_text) == (
        "instance_group",
        "model_warmup",
        "name",
        "output",
    )


# -- changes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("serving", "expected"),
    [
        ({}, ()),
        ({"maxBatchSize": 4}, ("max_batch_size",)),
        ({"dynamicBatching": {}}, ("dynamic_batching",)),
        ({"instances": [{"count": 2}]}, ("instance_group",)),
        ({"parameters": {"a": "1"}}, ("parameters",)),
        ({"warmup": True}, ("model_warmup",)),
        ({"labels": {"scores": ["a"]}}, ("output",)),
        ({"maxBatchSize": 4, "warmup": True}, ("max_batch_size", "model_warmup")),
    ],
)
def test_what_changed_is_named(serving: dict[str, object], expected: tuple[str, ...]) -> None:
    before = rendered(signature=CLASSIFIER, versions={1})
    after = rendered(serving, signature=CLASSIFIER, versions={1, 2})
    assert model_config.changes(before.text, after.text) == expected
    assert model_config.changes(after.text, before.text) == expected


@given(servings, servings, signatures)
def test_nothing_changed_exactly_when_the_fingerprint_stayed(
    serving: dict[str, object], other: dict[str, object], signature: Signature
) -> None:
    before, after = rendered(serving, signature=signature), rendered(other, signature=signature)
    same = before.fingerprint == after.fingerprint
    assert (model_config.changes(before.text, after.text) == ()) == same


# -- OpenVINO ----------------------------------------------------------------------------------------


def openvino(
    serving: dict[str, object] | None = None, *, signature: Signature | None = None
) -> pb.ModelConfig:
    builder = a_model().with_version(1, "pvc://sources/1.onnx").with_spec(backend="OpenVINO")
    return read(rendered(serving, signature=signature, builder=builder))


def test_openvino_takes_batches_as_they_come_unless_requests_are_put_together() -> None:
    plain, together = openvino(), openvino({"dynamicBatching": {}, "maxBatchSize": 8})
    assert (plain.backend, plain.max_batch_size, list(plain.input[0].dims)) == ("openvino", 0, [-1, 3])
    assert (together.max_batch_size, list(together.input[0].dims)) == (8, [3])
    assert not plain.HasField("dynamic_batching")
    padding = {k: v.string_value for k, v in together.parameters.items() if k != CONFIG_PARAMETER}
    assert padding == {"ENABLE_BATCH_PADDING": "YES", "SKIP_OV_DYNAMIC_BATCHSIZE": "YES"}
    assert "ENABLE_BATCH_PADDING" not in plain.parameters


def test_openvino_fills_up_no_batch_of_inputs_with_other_free_dimensions() -> None:
    found = openvino({"dynamicBatching": {}}, signature=a_signature(a_tensor("x", -1, 3, -1)))
    assert (found.max_batch_size, list(found.input[0].dims)) == (0, [-1, 3, -1])


def test_openvino_runs_on_the_cpu_and_does_what_the_user_says() -> None:
    serving = {
        "dynamicBatching": {},
        "instances": [{"count": 2}],
        "parameters": {"ENABLE_BATCH_PADDING": "NO"},
    }
    found = openvino(serving)
    assert [(group.count, group.kind) for group in found.instance_group] == [
        (2, pb.ModelInstanceGroup.KIND_CPU)
    ]
    assert found.parameters["ENABLE_BATCH_PADDING"].string_value == "NO"
