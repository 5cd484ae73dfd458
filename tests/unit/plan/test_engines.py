from __future__ import annotations

from typing import Any

from tests.builders import a_model
from tests.observed import NAMESPACE, an_engine, at, engine_of, model, sha

from triton_operator.plan import engines
from triton_operator.plan.engines import Place
from triton_operator.resources.engine import Engine

MODEL = model(a_model("detector").with_version(1, "pvc://s/1.onnx", sha256=sha("1")))
NEEDED = engine_of(MODEL, 1)


def manifest() -> dict[str, Any]:
    return engines.manifest(
        engine=NEEDED, namespace=NAMESPACE, repository="models", model=MODEL, version=MODEL.spec.versions[0]
    )


def test_an_engine_says_what_it_is_made_of_and_belongs_to_nobody() -> None:
    body = manifest()
    assert "ownerReferences" not in body["metadata"]
    assert body["metadata"]["name"] == f"onnxruntime-{NEEDED.key[:16]}"
    found = Engine.parse(body)
    assert (found.spec.key, found.spec.repository) == (NEEDED.key, "models")
    assert found.spec.source is not None
    assert (found.spec.source.uri, found.spec.source.sha256) == ("pvc://s/1.onnx", sha("1"))


def use(uri: str, cosine: str = "0.99", *, secret: str | None = None) -> engines.Use:
    return engines.Use(Place(uri, secret), cosine)


def uses(*uris: str) -> set[engines.Use]:
    return {use(uri) for uri in uris}


def conditions(ready: str) -> dict[str, Any]:
    condition = {"type": "Ready", "status": ready, "reason": "R", "message": "", "lastTransitionTime": at(0)}
    return {"conditions": [condition]}


def test_a_source_that_moved_is_followed() -> None:
    engine = Engine.parse(an_engine(NEEDED, uri="pvc://old/1.onnx", status=conditions("False")))
    body = engines.adjusted(engine, uses("pvc://new/1.onnx"))
    assert body is not None
    assert body["spec"]["source"] == {"uri": "pvc://new/1.onnx", "sha256": sha("1")}
    assert body["metadata"]["uid"] == engine.metadata.uid
    assert "status" not in body
    assert Engine.parse(body).spec.model_copy(update={"source": engine.spec.source}) == engine.spec


def test_a_source_that_any_user_still_names_stays() -> None:
    engine = Engine.parse(an_engine(NEEDED, uri="pvc://old/1.onnx"))
    assert engines.adjusted(engine, uses("pvc://new/1.onnx", "pvc://old/1.onnx")) is None
    assert engines.adjusted(engine, uses()) is None


def test_several_new_places_give_the_same_answer_every_time() -> None:
    engine = Engine.parse(an_engine(NEEDED, uri="pvc://old/1.onnx"))
    body = engines.adjusted(engine, uses("pvc://b/1.onnx", "pvc://a/1.onnx"))
    assert body is not None
    assert body["spec"]["source"]["uri"] == "pvc://a/1.onnx"
    assert engines.adjusted(Engine.parse(body), uses("pvc://b/1.onnx", "pvc://a/1.onnx")) is None


def test_a_built_engine_follows_its_source_too_since_its_files_may_get_lost() -> None:
    engine = Engine.parse(an_engine(NEEDED, uri="pvc://old/1.onnx", status=conditions("True")))
    body = engines.adjusted(engine, uses("pvc://new/1.onnx"))
    assert body is not None
    assert body["spec"]["source"]["uri"] == "pvc://new/1.onnx"


CALIBRATED = model(
    a_model("detector")
    .with_version(
        1,
        "pvc://s/1.onnx",
        sha256=sha("1"),
        build={"precision": "INT8", "calibration": {"uri": "pvc://s/c.npz", "sha256": sha("c")}},
    )
    .with_minimum_cosine("0.95")
)


def a_calibrated_engine() -> Engine:
    needed = engine_of(CALIBRATED, 1)
    body = engines.manifest(
        engine=needed,
        namespace=NAMESPACE,
        repository="models",
        model=CALIBRATED,
        version=CALIBRATED.spec.versions[0],
    )
    stored = an_engine(needed, uri="pvc://s/1.onnx")
    return Engine.parse(stored | {"spec": body["spec"]})


def test_an_engine_says_what_is_done_to_the_numbers_and_what_is_good_enough() -> None:
    spec = a_calibrated_engine().spec
    assert spec.build is not None
    assert spec.build.precision == "INT8"
    assert spec.build.calibration is not None
    assert (spec.build.calibration.uri, spec.build.calibration.sha256) == ("pvc://s/c.npz", sha("c"))
    assert spec.minimum_cosine == "0.95"


def test_an_engine_whose_numbers_stay_says_nothing_of_them() -> None:
    assert not {"build", "minimumCosine"} & manifest()["spec"].keys()


def test_the_lowest_cosine_of_all_users_counts_and_each_checks_its_own_once_more() -> None:
    engine = a_calibrated_engine()
    same = {use("pvc://s/1.onnx", cosine) for cosine in ("0.95", "0.999")}
    assert engines.adjusted(engine, same) is None
    body = engines.adjusted(engine, same | {use("pvc://s/1.onnx", "0.9")})
    assert body is not None
    assert body["spec"]["minimumCosine"] == "0.9"
    assert Engine.parse(body).spec.build == engine.spec.build


def test_calibration_data_and_their_secret_are_followed_where_a_user_has_them() -> None:
    engine = a_calibrated_engine()
    source = Place("pvc://s/1.onnx")
    assert engines.adjusted(engine, {engines.Use(source, "0.95", Place("pvc://s/c.npz"))}) is None
    moved = {engines.Use(source, "0.95", Place("s3://b/c.npz", "s3-read"))}
    body = engines.adjusted(engine, moved)
    assert body is not None
    calibration = body["spec"]["build"]["calibration"]
    assert (calibration["uri"], calibration["secretName"]) == ("s3://b/c.npz", "s3-read")
    assert calibration["sha256"] == sha("c")
    assert engines.adjusted(Engine.parse(body), moved) is None
    back = engines.adjusted(Engine.parse(body), {engines.Use(source, "0.95", Place("pvc://s/c.npz"))})
    assert back is not None
    assert "secretName" not in back["spec"]["build"]["calibration"]


def test_a_version_says_where_its_source_and_its_calibration_data_lie() -> None:
    found = engines.use_of(CALIBRATED, CALIBRATED.spec.versions[0])
    assert found == engines.Use(Place("pvc://s/1.onnx"), "0.95", Place("pvc://s/c.npz"))
    assert engines.use_of(MODEL, MODEL.spec.versions[0]).calibration is None


def test_users_of_an_engine_whose_numbers_stay_ask_nothing_of_it() -> None:
    engine = Engine.parse(an_engine(NEEDED, uri="pvc://s/1.onnx"))
    assert engines.adjusted(engine, {use("pvc://s/1.onnx", "0.5")}) is None


def test_a_secret_goes_with_its_source() -> None:
    engine = Engine.parse(an_engine(NEEDED, uri="s3://b/1.onnx"))
    body = engines.adjusted(engine, {use("s3://b/1.onnx", secret="rotated")})
    assert body is not None
    assert body["spec"]["source"] == {"uri": "s3://b/1.onnx", "secretName": "rotated", "sha256": sha("1")}
    assert engines.adjusted(Engine.parse(body), {use("s3://b/1.onnx", secret="rotated")}) is None
    with_secret = model(
        a_model("detector").with_version(1, "s3://b/1.onnx", sha256=sha("1"), secret="s3-read")
    )
    assert engine_of(with_secret, 1).key == NEEDED.key  # who reads it decides no byte


def test_an_engine_of_openvino_is_made_from_another_for_no_gpu_and_says_what_its_numbers_are() -> None:
    found = model(
        a_model("detector")
        .with_version(1, "pvc://s/1.onnx", sha256=sha("1"), build={"precision": "FP16"})
        .with_spec(backend="OpenVINO")
    )
    needed = engine_of(found, 1)
    body = engines.manifest(
        engine=needed, namespace=NAMESPACE, repository="models", model=found, version=found.spec.versions[0]
    )
    assert body["spec"] == {
        "key": needed.key,
        "backend": "OpenVINO",
        "repository": "models",
        "from": needed.prepared.name,
        "build": {"precision": "FP16", "keepIO": True},
    }
    stored = Engine.parse(an_engine(needed) | {"spec": body["spec"]})
    assert stored.precision == "FP16"
    assert engines.adjusted(stored, uses("pvc://s/2.onnx")) is None
