from __future__ import annotations

from typing import Any

from tests.builders import a_model
from tests.observed import NAMESPACE, an_engine, at, engine_of, model, sha

from triton_operator.plan import engines
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
    assert (found.spec.source.uri, found.spec.source.sha256) == ("pvc://s/1.onnx", sha("1"))


def conditions(ready: str) -> dict[str, Any]:
    condition = {"type": "Ready", "status": ready, "reason": "R", "message": "", "lastTransitionTime": at(0)}
    return {"conditions": [condition]}


def test_a_source_that_moved_is_followed() -> None:
    engine = Engine.parse(an_engine(NEEDED, uri="pvc://old/1.onnx", status=conditions("False")))
    body = engines.moved(engine, {"pvc://new/1.onnx"})
    assert body is not None
    assert body["spec"]["source"] == {"uri": "pvc://new/1.onnx", "sha256": sha("1")}
    assert body["metadata"]["uid"] == engine.metadata.uid
    assert "status" not in body
    assert Engine.parse(body).spec.model_copy(update={"source": engine.spec.source}) == engine.spec


def test_a_source_that_any_user_still_names_stays() -> None:
    engine = Engine.parse(an_engine(NEEDED, uri="pvc://old/1.onnx"))
    assert engines.moved(engine, {"pvc://new/1.onnx", "pvc://old/1.onnx"}) is None
    assert engines.moved(engine, set()) is None


def test_several_new_places_give_the_same_answer_every_time() -> None:
    engine = Engine.parse(an_engine(NEEDED, uri="pvc://old/1.onnx"))
    body = engines.moved(engine, {"pvc://b/1.onnx", "pvc://a/1.onnx"})
    assert body is not None
    assert body["spec"]["source"]["uri"] == "pvc://a/1.onnx"
    assert engines.moved(Engine.parse(body), {"pvc://b/1.onnx", "pvc://a/1.onnx"}) is None


def test_a_built_engine_follows_its_source_too_since_its_files_may_get_lost() -> None:
    engine = Engine.parse(an_engine(NEEDED, uri="pvc://old/1.onnx", status=conditions("True")))
    body = engines.moved(engine, {"pvc://new/1.onnx"})
    assert body is not None
    assert body["spec"]["source"]["uri"] == "pvc://new/1.onnx"
