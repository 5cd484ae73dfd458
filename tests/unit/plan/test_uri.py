from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triton_operator.plan.outcome import OutcomeError, Stalled
from triton_operator.plan.uri import ClaimSource, RemoteSource, parse
from triton_operator.resources.version import SOURCE_URI_PATTERN


def test_the_claim_is_what_a_pod_mounts() -> None:
    assert parse("pvc://models/detector/1/model.onnx") == ClaimSource("models", "detector/1/model.onnx")
    assert parse("pvc://a.b-c/with%20space.onnx").path == "with space.onnx"


@pytest.mark.parametrize(
    "uri",
    [
        *("pvc://claim", "pvc://claim/", "pvc:///model.onnx", "/model.onnx", "", "s3://bucket", "gs:///x"),
        *("http://host/model.onnx", "file:///etc/passwd", "oci://registry", "https://host:port/x"),
    ],
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
    if isinstance(found, ClaimSource):
        assert uri.startswith(f"pvc://{found.claim}/")
    else:
        assert uri.startswith(f"{found.scheme}://{found.host or ''}")


def test_a_remote_source_names_its_host_or_leaves_it_to_the_secret() -> None:
    assert parse("https://models.example/det/1.onnx?sig=x") == RemoteSource("https", "models.example", 443)
    assert parse("oci://registry.example:5000/det:1") == RemoteSource("oci", "registry.example", 5000)
    assert parse(f"oci://registry.example/a/det@sha256:{'0' * 64}").host == "registry.example"
    for scheme in ("s3", "gs", "az"):
        assert parse(f"{scheme}://bucket/det/1.onnx") == RemoteSource(scheme, None)
