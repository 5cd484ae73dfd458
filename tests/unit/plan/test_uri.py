from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triton_operator.plan.outcome import OutcomeError, Stalled
from triton_operator.plan.uri import ClaimSource, parse
from triton_operator.resources.version import SOURCE_URI_PATTERN


def test_the_claim_is_what_a_pod_mounts() -> None:
    assert parse("pvc://models/detector/1/model.onnx") == ClaimSource("models", "detector/1/model.onnx")
    assert parse("pvc://a.b-c/with%20space.onnx").path == "with space.onnx"


@pytest.mark.parametrize(
    "uri", ["s3://bucket/model.onnx", "pvc://claim", "pvc://claim/", "pvc:///model.onnx", "/model.onnx", ""]
)
def test_what_no_job_can_read_is_stalled(uri: str) -> None:
    with pytest.raises(OutcomeError) as caught:
        parse(uri)
    assert isinstance(caught.value.outcome, Stalled)
    assert caught.value.outcome.reason == "UnsupportedSource"
    assert "pvc://" in caught.value.outcome.message


@given(st.from_regex(SOURCE_URI_PATTERN, fullmatch=True))
def test_whatever_the_schema_admits_names_a_claim_or_is_stalled(uri: str) -> None:
    try:
        found = parse(uri)
    except OutcomeError:
        return
    assert uri.startswith(f"pvc://{found.claim}/")
