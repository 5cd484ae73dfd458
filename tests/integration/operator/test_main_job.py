"""From `kubectl apply` to answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
from tests.builders import a_claim, a_model, a_repository, a_server
from tests.integration.eventually import eventually
from tests.integration.operator.stage import SOURCES, uri_of
from tests.onnx_models import SIZE

if TYPE_CHECKING:
    from tests.integration.operator.stage import Stage


def test_model_is_answered_by_every_pod_as_onnxruntime_answers(stage: Stage) -> None:
    stage.set_up(replicas=2)
    uri = stage.put_model("two.onnx", 2.0)
    stage.apply(a_model("main").with_version(1, uri))
    found = stage.wait_ready("InferenceModel", "main")
    session = onnxruntime.InferenceSession(stage.sources() / "two.onnx")
    expected = session.run(None, {"x": np.ones((1, SIZE), dtype=np.float32)})[0]
    assert len(stage.tritons()) == 2
    for pod in stage.tritons():
        version, answer = stage.answer(pod, "main")
        assert version == 1
        np.testing.assert_array_equal(answer.reshape(expected.shape), expected)
    (version,) = found["status"]["versions"]
    assert (version["number"], version["state"], version["pods"]) == (1, "Promoted", "2/2")
    assert version["sha256"] == stage.sha256("two.onnx")
    stage.wait_ready("TritonServer", "default")
    stage.wait_ready("ModelRepository", "default")


def test_order_of_apply_does_not_matter(stage: Stage) -> None:
    stage.apply(a_model("early").with_version(1, uri_of("early.onnx")))
    stage.wait_condition("InferenceModel", "early", "Reconciling", "True", reason="ServerNotFound")
    assert "default" in stage.message("InferenceModel", "early")
    stage.apply(a_server())
    stage.wait_condition("TritonServer", "default", "Reconciling", "True", reason="RepositoryNotFound")
    stage.apply(a_repository().on_claim("models"))
    stage.wait_condition("ModelRepository", "default", "Reconciling", "True", reason="ClaimNotFound")
    assert "models" in stage.message("ModelRepository", "default")
    stage.apply(a_claim("models"))
    stage.wait_ready("ModelRepository", "default")

    def waits_for_the_source() -> None:
        assert SOURCES in stage.message("InferenceModel", "early")

    eventually(waits_for_the_source, because=stage.explain)
    stage.apply(a_claim(SOURCES))
    stage.put_model("early.onnx", 3.0)
    stage.wait_ready("InferenceModel", "early")
    assert set(stage.served_factors("early").values()) == {3.0}


def test_two_versions_are_served_side_by_side(stage: Stage) -> None:
    stage.set_up()
    first, second = stage.put_model("1.onnx", 2.0), stage.put_model("2.onnx", 5.0)
    model = a_model("growing").with_version(1, first)
    stage.apply(model)
    stage.wait_ready("InferenceModel", "growing")
    stage.apply(model.with_version(2, second))
    found = stage.wait_ready("InferenceModel", "growing")
    (pod,) = stage.tritons()
    assert stage.answer(pod, "growing")[0] == 2
    assert stage.answer(pod, "growing", version=1)[1][0] == 2.0
    assert stage.answer(pod, "growing", version=2)[1][0] == 5.0
    assert found["status"]["versionsServing"] == "1,2"
    assert stage.tritons()[pod].repository.version_loads["growing", 1] == 1, (
        "the old version was loaded again"
    )


def test_equal_sources_share_one_engine(stage: Stage) -> None:
    stage.set_up()
    uri, copied = stage.put_model("same.onnx", 2.0), stage.put_model("copy.onnx", 2.0)
    stage.apply(a_model("one").with_version(1, uri), a_model("other").with_version(7, copied))
    stage.wait_ready("InferenceModel", "one")
    stage.wait_ready("InferenceModel", "other")
    (engine,) = stage.kube.list("Engine")
    assert sorted(engine["status"]["usedBy"]) == ["one/1", "other/7"]


def test_server_without_models_holds_no_pod(stage: Stage) -> None:
    stage.set_up(replicas=2)
    stage.wait_ready("ModelRepository", "default")

    def settled() -> None:
        deployment = stage.kube.find("Deployment", "triton-default")
        assert deployment is None or deployment["spec"]["replicas"] == 0
        assert stage.kube.condition("TritonServer", "default", "Ready")[0] == "True"

    eventually(settled, because=stage.explain)
    assert stage.tritons() == {}


def test_more_replicas_start_with_what_the_tree_holds(stage: Stage) -> None:
    stage.set_up()
    stage.apply(a_model("wide").with_version(1, stage.put_model("wide.onnx", 2.0)))
    stage.wait_ready("InferenceModel", "wide")
    stage.apply(a_server().with_replicas(3))

    def three_pods() -> None:
        assert list(stage.served_factors("wide").values()) == [2.0, 2.0, 2.0]
        assert stage.kube.get("InferenceModel", "wide")["status"]["versions"][0]["pods"] == "3/3"

    eventually(three_pods, because=stage.explain)
    loads = [double.counts.loads["wide"] for double in stage.tritons().values()]
    assert sorted(loads)[:2] == [0, 0], "new pods need no load: the tree holds the model"
