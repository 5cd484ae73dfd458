"""A suspended model is left as it is until it is resumed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.integration.eventually import eventually
from tests.integration.operator.operator_process import FLEET_SECONDS

if TYPE_CHECKING:
    from tests.builders import ModelBuilder
    from tests.integration.operator.stage import Stage


def suspended(stage: Stage, *, replicas: int = 1) -> ModelBuilder:
    """Have a model served and suspended, and return it as it is not."""
    stage.set_up(replicas=replicas)
    model = stage.serve("still", 2.0)
    stage.apply(model.with_spec(suspend=True))
    wait_suspended(stage)
    return model


def wait_suspended(stage: Stage) -> None:
    stage.wait_condition("InferenceModel", "still", "Ready", "True", reason="Suspended")


def test_suspended_model_serves_on_and_nothing_is_built_loaded_or_unloaded(stage: Stage) -> None:
    model = suspended(stage)
    jobs, calls, tree = stage.kube.list("Job"), stage.calls(), sorted(stage.tree().rglob("*"))
    with stage.asked({"still": (2.0,)}):
        second = model.with_version(2, stage.put_model("2.onnx", 5.0))
        stage.apply(second.with_spec(suspend=True, serving={"dynamicBatching": {}}))
        wait_suspended(stage)
        time.sleep(2 * FLEET_SECONDS)
    assert [job["metadata"]["uid"] for job in stage.kube.list("Job")] == [j["metadata"]["uid"] for j in jobs]
    assert stage.calls() == calls
    assert sorted(stage.tree().rglob("*")) == tree


def test_what_is_unloaded_by_hand_stays_so_while_the_model_is_suspended(stage: Stage) -> None:
    model = suspended(stage)
    (double,) = stage.tritons().values()
    double.repository.unload("still")
    time.sleep(2 * FLEET_SECONDS)
    assert double.repository.ready("still") == {}
    stage.apply(model)
    stage.wait_ready("InferenceModel", "still")
    assert list(stage.served_factors("still").values()) == [2.0]


def test_pods_that_start_serve_a_suspended_model(stage: Stage) -> None:
    suspended(stage)
    stage.apply(stage.a_server(replicas=2))
    stage.wait_factors("still", 2.0, 2.0)
    stage.serve("other", 3.0)
    assert list(stage.served_factors("still").values()) == [2.0, 2.0]


def test_resumed_model_goes_on_where_its_spec_is(stage: Stage) -> None:
    model = suspended(stage)
    second = model.with_version(2, stage.put_model("2.onnx", 5.0))
    stage.apply(second.with_spec(suspend=True))
    wait_suspended(stage)
    with stage.asked({"still": (2.0, 5.0), "still/1": (2.0,)}):
        stage.apply(second)
        stage.wait_condition("InferenceModel", "still", "Ready", "True", reason="Served")
    assert list(stage.served_factors("still").values()) == [5.0]


def test_model_that_is_suspended_from_the_start_is_not_built(stage: Stage) -> None:
    stage.set_up()
    stage.apply(stage.a_model("still", 2.0).with_spec(suspend=True))

    def told() -> None:
        assert stage.kube.condition("InferenceModel", "still", "Ready")[1] == "Suspended"

    eventually(told, because=stage.explain)
    assert stage.kube.list("Engine") == []


def test_suspended_model_that_is_deleted_is_unloaded(stage: Stage) -> None:
    suspended(stage)
    stage.kube.delete("InferenceModel", "still")
    stage.wait_factors("still", None)
