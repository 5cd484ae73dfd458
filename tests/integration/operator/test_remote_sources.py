"""Models from elsewhere: what a repository allows is read, and what it doesn't is told until it is mended."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.builders import a_claim, a_model, a_repository
from tests.integration.eventually import eventually
from tests.integration.operator.stage import SOURCES, uri_of
from tests.integration.sources.servers import s3_gateway
from tests.onnx_models import SIZE, write_dense, write_multiply

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.builders import ModelBuilder
    from tests.integration.operator.stage import Stage
    from tests.integration.sources.servers import S3

SECRET = "s3-read"


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """An S3 gateway."""
    with s3_gateway(tmp_path_factory.mktemp("s3")) as gateway:
        yield gateway


def a_secret(values: Mapping[str, str], name: str = SECRET) -> dict[str, Any]:
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": encoded}


def put(s3: S3, path: Path, factor: float) -> str:
    """Store a `multiply` model in the bucket, and return its URI."""
    return s3.put("models", f"det/{path.name}", write_multiply(path, factor).read_bytes())


def set_up(stage: Stage, s3: S3) -> None:
    """Apply a server, and a repository that allows the gateway and its Secret."""
    stage.apply(a_repository().with_access(s3.allowed, secrets=(SECRET,)), stage.a_server(replicas=1))


def test_a_model_from_s3_is_served_with_the_keys_of_a_secret(stage: Stage, s3: S3, tmp_path: Path) -> None:
    set_up(stage, s3)
    stage.apply(a_secret(s3.secret))
    uri = put(s3, tmp_path / "served.onnx", 3.0)
    stage.apply(a_model("served").with_version(1, uri, secret=SECRET))
    stage.wait_ready("InferenceModel", "served")
    assert set(stage.served_factors("served").values()) == {3.0}
    (engine,) = stage.kube.list("Engine")
    assert engine["spec"]["source"]["secretName"] == SECRET
    log = stage.kubelet.logs(stage.kube.namespace)
    assert s3.secret["AWS_SECRET_ACCESS_KEY"] not in log


def test_samples_come_from_elsewhere_too(stage: Stage, s3: S3, tmp_path: Path) -> None:
    set_up(stage, s3)
    stage.apply(a_secret(s3.secret))
    np.savez(tmp_path / "samples.npz", x=np.ones((2, SIZE), dtype=np.float32))
    samples = s3.put("models", "det/samples.npz", (tmp_path / "samples.npz").read_bytes())
    uri = put(s3, tmp_path / "tested.onnx", 6.0)
    stage.apply(a_model("tested").with_version(1, uri, secret=SECRET).with_samples(samples, secret=SECRET))
    found = stage.wait_ready("InferenceModel", "tested")
    assert found["status"]["versions"][0]["checks"][0]["message"].endswith("2 of them your own")


def test_calibration_data_come_from_elsewhere_too_with_a_secret_that_may_change(
    stage: Stage, s3: S3, tmp_path: Path
) -> None:
    set_up(stage, s3)
    stage.apply(a_repository().with_access(s3.allowed, secrets=(SECRET, "rotated")))
    stage.apply(a_claim(SOURCES), a_secret(s3.secret))
    write_dense(stage.sources() / "dense.onnx")
    rows = np.random.default_rng(1).normal(size=(8, SIZE)).astype(np.float32)
    np.savez(tmp_path / "c.npz", x=rows)
    data = s3.put("models", "det/calibration.npz", (tmp_path / "c.npz").read_bytes())

    def a_calibrated_model(secret: str) -> ModelBuilder:
        build = {"precision": "INT8", "calibration": {"uri": data, "secretName": secret}}
        return a_model("calibrated").with_version(1, uri_of("dense.onnx"), build=build)

    stage.apply(a_calibrated_model(SECRET))
    stage.wait_ready("InferenceModel", "calibrated")
    (engine,) = stage.kube.list("Engine")
    assert engine["spec"]["build"]["calibration"]["secretName"] == SECRET
    report = json.loads((stage.volume() / "store" / engine["metadata"]["name"] / "report.json").read_text())
    assert report["precision"]["calibration"] == {"samples": 8, "generated": False}
    assert s3.secret["AWS_SECRET_ACCESS_KEY"] not in stage.kubelet.logs(stage.kube.namespace)

    stage.apply(a_calibrated_model("rotated"))

    def followed() -> None:
        (same,) = stage.kube.list("Engine")
        assert same["metadata"]["uid"] == engine["metadata"]["uid"]
        assert same["spec"]["build"]["calibration"]["secretName"] == "rotated"

    eventually(followed, because=stage.explain)
    stage.wait_ready("InferenceModel", "calibrated")


def test_what_a_repository_does_not_allow_is_told_and_mended_without_touching_the_model(
    stage: Stage, s3: S3, tmp_path: Path
) -> None:
    stage.apply(a_repository(), stage.a_server(replicas=1), a_secret(s3.secret))
    uri = put(s3, tmp_path / "closed.onnx", 2.0)
    stage.apply(a_model("closed").with_version(1, uri, secret=SECRET))
    stage.wait_condition("InferenceModel", "closed", "Stalled", "True", reason="HostNotAllowed")
    assert "spec.allowedHosts" in stage.message("InferenceModel", "closed")
    stage.apply(a_repository().with_access(s3.allowed))
    stage.wait_condition("InferenceModel", "closed", "Stalled", "True", reason="SecretNotAllowed")
    assert f"add {SECRET} to its spec.allowedSecrets" in stage.message("InferenceModel", "closed")
    assert not stage.kube.list("Job")
    set_up(stage, s3)
    stage.wait_ready("InferenceModel", "closed")
    assert set(stage.served_factors("closed").values()) == {2.0}


def test_a_secret_that_is_missing_is_told_and_looked_for_again(stage: Stage, s3: S3, tmp_path: Path) -> None:
    set_up(stage, s3)
    uri = put(s3, tmp_path / "early.onnx", 4.0)
    stage.apply(a_model("early").with_version(1, uri, secret=SECRET))
    stage.wait_condition("InferenceModel", "early", "Stalled", "True", reason="AccessDenied")
    assert "does not exist in this namespace" in stage.message("InferenceModel", "early")
    stage.apply(a_secret(s3.secret))
    stage.wait_ready("InferenceModel", "early")
    assert set(stage.served_factors("early").values()) == {4.0}


def test_a_host_that_only_the_job_comes_to_know_is_refused_there(
    stage: Stage, s3: S3, tmp_path: Path
) -> None:
    stage.apply(
        a_repository().with_access("models.example", secrets=(SECRET,)),
        stage.a_server(replicas=1),
        a_secret(s3.secret),
    )
    uri = put(s3, tmp_path / "elsewhere.onnx", 5.0)
    stage.apply(a_model("elsewhere").with_version(1, uri, secret=SECRET))
    stage.wait_condition("InferenceModel", "elsewhere", "Stalled", "True", reason="HostNotAllowed")
    assert f"add {s3.allowed} to spec.allowedHosts" in stage.message("InferenceModel", "elsewhere")
