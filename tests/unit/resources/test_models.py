"""Reading and writing the four kinds."""

from __future__ import annotations

import datetime as dt
from types import MappingProxyType
from typing import Any

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triton_operator.resources import KINDS, Engine, InferenceModel, ModelRepository, TritonServer
from triton_operator.resources.common import Condition, ConditionStatus
from triton_operator.resources.engine import engine_name
from triton_operator.resources.scalars import parse_duration, parse_size
from triton_operator.resources.triton_server import OWNED_FLAGS
from triton_operator.resources.version import Backend

SHA = "a" * 64
KEY = "5f1c0a9e2b7d4c11" + "0" * 48


def _body(spec: dict[str, Any], name: str = "text", **more: object) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "vision", "uid": "u-1", "generation": 2},
        "spec": spec,
        **more,
    }


def _model(**spec: object) -> InferenceModel:
    version = {"number": 1, "source": {"uri": "pvc://models/1.onnx"}}
    return InferenceModel.parse(_body({"backend": "ONNXRuntime", "versions": [version], **spec}))


def _read_only(value: object) -> object:
    """Return the value as nested read-only mappings, which is how event handlers get objects."""
    if isinstance(value, dict):
        return MappingProxyType({key: _read_only(child) for key, child in value.items()})
    return [_read_only(child) for child in value] if isinstance(value, list) else value


BODIES = {
    InferenceModel: _body(
        {
            "backend": "ONNXRuntime",
            "versions": [{"number": 1, "source": {"uri": "pvc://m/1.onnx", "sha256": SHA}}],
        }
    ),
    TritonServer: _body({"image": "t:26.07-py3", "resources": {"limits": {"cpu": 2, "memory": "2Gi"}}}),
    ModelRepository: _body({"storage": {"size": 1024}}),
    Engine: _body(
        {
            "key": KEY,
            "backend": "ONNXRuntime",
            "repository": "default",
            "source": {"uri": "pvc://m/1.onnx", "sha256": SHA},
            "build": {"precision": "FP16"},
            "prepareVersion": 1,
        }
    ),
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.KIND.kind))
def test_manifest_is_read_written_and_read_again(kind: type[Any]) -> None:
    first = kind.parse(BODIES[kind])

    manifest = first.to_manifest()

    assert manifest["apiVersion"] == "triton-operator.io/v1alpha1"
    assert manifest["kind"] == kind.KIND.kind
    assert kind.parse(manifest) == first


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.KIND.kind))
def test_read_only_mappings_are_read(kind: type[Any]) -> None:
    assert kind.parse(_read_only(BODIES[kind])) == kind.parse(BODIES[kind])


def test_unknown_fields_are_ignored() -> None:
    assert _model(rollout={"strategy": "Canary"}).spec == _model().spec


def test_objects_cannot_be_changed() -> None:
    model = _model()
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        model.spec.check.minimum_cosine = "0.5"  # type: ignore[misc]


def test_object_without_status_was_not_observed() -> None:
    assert _model().status.observed_generation == -1
    assert _model().status.condition("Ready") is None


def test_triton_name_is_the_model_name_or_the_objects_name() -> None:
    assert _model().triton_name == "text"
    assert _model(modelName="text_detection").triton_name == "text_detection"


def test_batch_size_is_the_smallest_build_unless_asked_for() -> None:
    versions = [
        {"number": n, "source": {"uri": "pvc://m/x"}, "build": {"maxBatchSize": size}}
        for n, size in ((1, 8), (2, 4))
    ]
    assert _model(versions=versions).spec.max_batch_size({1, 2}) == 4
    assert _model(versions=versions, serving={"maxBatchSize": 0}).spec.max_batch_size({1}) == 0


def test_a_batch_that_is_left_out_is_the_largest_of_the_profiles() -> None:
    profiles = [
        {"inputs": [{"name": "x", "min": [1, 3], "opt": [8, 3], "max": [batch, 3]}]} for batch in (8, 20)
    ]
    version = {"number": 1, "source": {"uri": "pvc://m/x"}, "build": {"profiles": profiles}}
    assert _model(backend="TensorRT", versions=[version]).spec.max_batch_size({1}) == 20
    version["build"] = {"profiles": profiles, "maxBatchSize": 16}
    assert _model(backend="TensorRT", versions=[version]).spec.max_batch_size({1}) == 16
    assert _model().spec.max_batch_size({1}) == 16


def test_versions_that_are_not_served_do_not_shrink_the_batch() -> None:
    versions = [
        {"number": n, "source": {"uri": "pvc://m/x"}, "build": {"maxBatchSize": size}}
        for n, size in ((1, 8), (2, 4))
    ]
    assert _model(versions=versions).spec.max_batch_size({1}) == 8
    assert _model(versions=versions).spec.max_batch_size(()) == 4


def test_version_is_found_by_number() -> None:
    assert _model().spec.version(1) == _model().spec.versions[0]
    assert _model().spec.version(2) is None


@pytest.mark.parametrize(
    ("image", "release"),
    [
        ("nvcr.io/nvidia/tritonserver:26.07-py3", "26.07"),
        ("mirror:5000/tritonserver:26.07", "26.07"),
        ("mirror/tritonserver:26.07-py3@sha256:" + "0" * 64, "26.07"),
        ("mirror/tritonserver@sha256:" + "0" * 64, None),
        ("mirror/tritonserver:latest", None),
        ("mirror:26.07/tritonserver", None),
        ("mirror/tritonserver:26.071", None),
    ],
)
def test_release_is_read_from_the_tag(image: str, release: str | None) -> None:
    assert TritonServer.parse(_body({"image": image})).release == release


def test_release_of_the_spec_wins() -> None:
    assert TritonServer.parse(_body({"image": "t:26.07-py3", "release": "26.08"})).release == "26.08"


def test_service_names_follow_the_server_or_the_spec() -> None:
    server = TritonServer.parse(_body({"image": "t"}, name="a10"))
    named = TritonServer.parse(_body({"image": "t", "service": {"name": "vision"}}, name="a10"))
    assert (server.service_name, server.headless_service_name) == ("triton-a10", "triton-a10-pods")
    assert (named.service_name, named.headless_service_name) == ("vision", "vision-pods")


def test_whole_numbers_are_quantities() -> None:
    server = TritonServer.parse(BODIES[TritonServer])
    assert server.spec.resources is not None
    assert server.spec.resources.limits == {"cpu": "2", "memory": "2Gi"}


@pytest.mark.parametrize("most", [0, 1, 1000, "0%", "7%", "25%", "100%"])
def test_a_number_of_pods_is_whole_or_a_percentage(most: int | str) -> None:
    server = TritonServer.parse(_body({"image": "t", "update": {"maxSurge": most}}))
    assert server.spec.update.max_surge == most
    assert server.to_manifest()["spec"]["update"]["maxSurge"] == most


@pytest.mark.parametrize("most", [-1, 1001, "1", "101%", "-1%", "01%", "%", "1%\n", 0.5, True, None])
def test_what_is_no_number_of_pods_is_refused(most: object) -> None:
    with pytest.raises(pydantic.ValidationError):
        TritonServer.parse(_body({"image": "t", "update": {"maxSurge": most}}))


def test_pods_are_replaced_and_end_without_loss_unless_told_otherwise() -> None:
    spec = TritonServer.parse(_body({"image": "t"})).spec
    assert (spec.update.max_surge, spec.update.max_unavailable) == (1, 0)
    assert spec.disruption.max_unavailable == 1
    assert (spec.shutdown.leave_seconds, spec.shutdown.exit_timeout_seconds) == (15, 10)
    assert (spec.loads.max_concurrent, spec.loads.timeout_seconds) == (8, 600)


def test_a_model_is_neither_suspended_nor_warmed_up_unless_asked_for() -> None:
    spec = _model().spec
    assert (spec.suspend, spec.serving.warmup, spec.check.samples) == (False, False, None)
    assert spec.serving.labels == {}


@pytest.mark.parametrize("size", ["-1Gi", "big", "1 Gi", True, 1.5])
def test_what_is_no_quantity_is_refused(size: object) -> None:
    with pytest.raises(pydantic.ValidationError):
        ModelRepository.parse(_body({"storage": {"size": size}}))


def test_claim_is_the_one_named_or_the_one_that_is_made() -> None:
    assert ModelRepository.parse(_body({"claimName": "models"}, name="r")).claim_name == "models"
    assert ModelRepository.parse(_body({"storage": {"size": "1Gi"}}, name="r")).claim_name == "repository-r"


def test_engine_is_named_after_backend_and_key() -> None:
    assert engine_name(Backend.ONNX_RUNTIME, KEY) == "onnxruntime-5f1c0a9e2b7d4c11"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("168h", 604_800), ("30m", 1800), ("1h30m", 5400), ("0.5s", 0.5), ("0s", 0), ("1m1m", 120)],
)
def test_duration_is_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "7d", "168", "h", "-1h", "1h ", "1h\n", "1 h", "1,5h", "٣h"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


@given(hours=st.integers(0, 10**6), minutes=st.integers(0, 59), seconds=st.integers(0, 59))
def test_every_duration_is_the_sum_of_its_parts(hours: int, minutes: int, seconds: int) -> None:
    assert parse_duration(f"{hours}h{minutes}m{seconds}s") == hours * 3600 + minutes * 60 + seconds


def _condition(time: dt.datetime) -> Condition:
    return Condition(
        type="Ready", status=ConditionStatus.TRUE, reason="Served", message="", last_transition_time=time
    )


_TIMES = st.integers(0, 250_000_000_000).map(lambda seconds: dt.datetime.fromtimestamp(seconds, dt.UTC))
_ZONES = st.integers(-14, 14).map(lambda hours: dt.timezone(dt.timedelta(hours=hours)))


@given(time=st.builds(dt.datetime.astimezone, _TIMES, _ZONES), microsecond=st.integers(0, 999_999))
def test_time_that_was_written_is_read_back_equal(time: dt.datetime, microsecond: int) -> None:
    condition = _condition(time.replace(microsecond=microsecond))
    assert Condition.model_validate(condition.to_manifest()) == condition


def test_time_is_written_as_kubernetes_does() -> None:
    time = dt.datetime(2026, 7, 1, 14, 0, 0, 999_999, tzinfo=dt.timezone(dt.timedelta(hours=2)))
    assert _condition(time).to_manifest()["lastTransitionTime"] == "2026-07-01T12:00:00Z"


def test_time_without_zone_is_refused() -> None:
    with pytest.raises(pydantic.ValidationError, match="time zone"):
        _condition(dt.datetime(2026, 7, 1))  # noqa: DTZ001


def test_names_of_kinds_are_unique() -> None:
    for field in ("kind", "plural", "short_name", "singular", "crd_name"):
        assert len({getattr(kind.KIND, field) for kind in KINDS}) == len(KINDS)


def test_owned_flags_hide_no_flag_of_the_user() -> None:
    allowed = [
        "--log-verbose",
        "--model-load-thread-count",
        "--http-header-forward-pattern",
        "--http-thread-count",
    ]
    allowed += [
        "--metrics-config",
        "--cuda-memory-pool-byte-size",
        "--backend-config",
        "--grpc-max-connection-age-grace",
        "--cache-config",
    ]
    assert [flag for flag in allowed if any(owned.startswith(flag) for owned in OWNED_FLAGS)] == []


@pytest.mark.parametrize(
    ("text", "size"),
    [("64Gi", 64 << 30), ("500M", 500_000_000), ("1k", 1000), ("9999999999Ti", 9999999999 << 40)],
)
def test_a_size_is_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "64", "0Gi", "-1Gi", "1.5Gi", "1e9", "Gi", "64gi", "64GiB", "1Gi\n", "٣Gi"]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)
