from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_builder.contract import (
    TERMINATION_MESSAGE_BYTES,
    CheckRequest,
    CheckResult,
    ModelTree,
    Reason,
    Report,
    Signature,
    Snapshot,
    StoreManifest,
    SweepRequest,
    Tensor,
    TreeManifest,
    TreeState,
    from_json,
    to_json,
)

KINDS: list[Any] = [
    CheckRequest,
    CheckResult,
    Report,
    Signature,
    Snapshot,
    StoreManifest,
    SweepRequest,
    Tensor,
    TreeManifest,
    TreeState,
]
_FLOATS = st.floats(allow_nan=False, allow_infinity=False)
st.register_type_strategy(float, _FLOATS)


def _contract_values() -> Any:
    return st.sampled_from(KINDS).flatmap(st.from_type)


@given(_contract_values())
def test_everything_that_crosses_the_wire_survives_it(value: Any) -> None:
    assert from_json(type(value), to_json(value)) == value


@given(_contract_values())
def test_fields_of_a_newer_version_are_ignored(value: Any) -> None:
    fields = {**json.loads(to_json(value)), "added_later": [1, {"a": None}]}
    assert from_json(type(value), json.dumps(fields)) == value


@given(_contract_values())
def test_a_missing_field_is_named(value: Any) -> None:
    fields = json.loads(to_json(value))
    name = next(iter(type(value).__dataclass_fields__))
    del fields[name]
    with pytest.raises(ValueError, match=name):
        from_json(type(value), json.dumps(fields))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "1", '{"models": {}}', '{"models": [{"name": 1}]}'])
def test_what_is_no_manifest_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="TreeManifest"):
        from_json(TreeManifest, text)


def test_what_an_older_version_wrote_is_still_read() -> None:
    tree = from_json(TreeManifest, '{"models":[{"name":"m","config":"c","versions":{"1":"e"}}]}')
    assert tree == TreeManifest((ModelTree("m", "c", {"1": "e"}),))
    fields = '"engine":"e","key":"k","source_sha256":"s","prepare_version":1,"files":{},"size_bytes":0'
    manifest = from_json(StoreManifest, f'{{{fields},"signature":{{"inputs":[],"outputs":[]}}}}')
    assert manifest.sample_shapes == {}
    request = from_json(
        CheckRequest, '{"address":"a","model":"m","version":"1","engine":"e","minimum_cosine":0.9}'
    )
    assert request.samples == ""


def test_an_unknown_reason_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="Nonsense"):
        from_json(Report, '{"reason": "Nonsense"}')


def test_a_revision_depends_on_content_alone() -> None:
    one = TreeManifest((ModelTree("m", "c", {"1": "a", "2": "b"}),))
    other = TreeManifest((ModelTree("m", "c", {"2": "b", "1": "a"}),))
    assert one.revision == other.revision
    assert one.revision != TreeManifest((ModelTree("m", "c", {"1": "a"}),)).revision
    labelled = ModelTree("m", "c", {"1": "a", "2": "b"}, {"labels.txt": "cat"})
    assert one.revision != TreeManifest((labelled,)).revision


@pytest.mark.parametrize(
    ("inputs", "outputs", "has_batch"),
    [
        ([(-1, 4)], [(-1,)], True),
        ([(-1, 4), (1, 4)], [(-1,)], False),
        ([(-1, 4)], [(4,)], False),
        ([(-1, 4)], [()], False),
        ([], [], False),
    ],
)
def test_a_batch_is_a_free_first_dimension_of_all_tensors(
    inputs: list[tuple[int, ...]], outputs: list[tuple[int, ...]], *, has_batch: bool
) -> None:
    one, other = (tuple(Tensor("t", "FP32", shape) for shape in shapes) for shapes in (inputs, outputs))
    assert Signature(one, other).has_batch is has_batch


@given(st.text(max_size=8000), st.integers(0, 60), st.text(max_size=40))
def test_a_report_always_fits_a_termination_message(message: str, tensors: int, name: str) -> None:
    signature = Signature(tuple(Tensor(name, "FP32", (1, 3, 224, 224)) for _ in range(tensors)), ())
    report = Report(Reason.INVALID_MODEL, message, engine="e", sha256="ab" * 32, signature=signature)
    text = report.to_termination_message()
    assert len(text.encode()) <= TERMINATION_MESSAGE_BYTES
    assert from_json(Report, text).reason is Reason.INVALID_MODEL


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_is_retried_or_is_not(reason: Reason) -> None:
    passing = {"VolumeFull", "VolumeError", "Cancelled", "InternalError", "Unreachable", "EngineMissing"}
    passing |= {"SourceUnreachable", "SourceChanged"}
    passing |= {"OOMKilled", "DeadlineExceeded", "NoGPU", "WrongGPU", "DriverTooOld", "CompilerMissing"}
    expected = 0 if reason is Reason.SUCCEEDED else 20 if reason.value in passing else 10
    assert Report(reason).exit_code == expected
