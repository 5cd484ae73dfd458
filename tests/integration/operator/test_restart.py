"""Operator, pods and keeper die and come back; what was done is not done again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.builders import a_model
from tests.integration.eventually import eventually
from tests.integration.operator.operator_process import FLEET_SECONDS

if TYPE_CHECKING:
    from tests.integration.operator.stage import Stage

QUIET_SECONDS = 3 * FLEET_SECONDS


def served(stage: Stage, *, replicas: int = 1) -> None:
    stage.set_up(replicas=replicas)
    stage.apply(
        a_model("one").with_version(1, stage.put_model("1.onnx", 2.0)),
        a_model("two").with_version(1, stage.put_model("2.onnx", 3.0)),
    )
    for model in ("one", "two"):
        stage.wait_ready("InferenceModel", model)
    stage.wait_ready("TritonServer", "default")
    at_rest(stage)


def at_rest(stage: Stage) -> None:
    """Wait until the operator has written nothing for a while."""
    last = [len(stage.operator.writes(stage.kube.namespace)), time.monotonic()]

    def quiet() -> None:
        number = len(stage.operator.writes(stage.kube.namespace))
        if number != last[0]:
            last[:] = [number, time.monotonic()]
        assert time.monotonic() - last[1] > FLEET_SECONDS, stage.operator.writes(stage.kube.namespace)[-5:]

    eventually(quiet, because=stage.explain)


def test_restarted_operator_repeats_nothing(stage: Stage) -> None:
    served(stage, replicas=2)
    calls, versions, writes = (
        stage.calls(),
        stage.resource_versions(),
        len(stage.operator.writes(stage.kube.namespace)),
    )
    stage.operator.kill()
    stage.operator.start()
    time.sleep(QUIET_SECONDS)
    assert stage.operator.writes(stage.kube.namespace)[writes:] == []
    assert stage.calls() == calls
    assert stage.resource_versions() == versions


def test_restarted_operator_goes_on_where_it_was(stage: Stage) -> None:
    stage.set_up()
    stage.apply(a_model("interrupted").with_version(1, stage.put_model("1.onnx", 2.0)))

    def job_was_made() -> None:
        assert stage.kube.list("Job")

    eventually(job_was_made, because=stage.explain)
    stage.operator.kill()
    stage.operator.start()
    stage.wait_ready("InferenceModel", "interrupted")
    assert set(stage.served_factors("interrupted").values()) == {2.0}
    (engine,) = stage.kube.list("Engine")
    assert engine["status"]["attempt"] == 1


def test_lost_status_is_found_again_without_a_load(stage: Stage) -> None:
    served(stage)
    calls = stage.calls()
    stage.operator.kill()
    for kind in ("InferenceModel", "TritonServer", "ModelRepository", "Engine"):
        for each in stage.kube.list(kind):
            stage.kube.patch(kind, each["metadata"]["name"], {"status": None}, subresource="status")
    jobs = [job["metadata"]["uid"] for job in stage.kube.list("Job")]
    stage.operator.start()
    for model in ("one", "two"):
        stage.wait_ready("InferenceModel", model)
    assert stage.calls() == calls
    assert {job["metadata"]["uid"] for job in stage.kube.list("Job")} <= set(jobs), "a Job was made again"


def test_crashed_pod_serves_again_without_the_operator(stage: Stage) -> None:
    served(stage)
    stage.operator.kill()
    (pod,) = stage.kubelet.pods(stage.kube.namespace, "triton")
    stage.kubelet.crash(pod)

    def serves_again() -> None:
        assert pod.container is not None
        assert list(stage.served_factors("one").values()) == [2.0]

    eventually(serves_again)
    stage.operator.start()
    stage.wait_ready("InferenceModel", "one")
    assert stage.calls() == {pod.name: ({}, {})}, "what the pod loaded from disk was loaded again"


def test_refused_load_is_told_in_tritons_words_and_tried_again(stage: Stage) -> None:
    served(stage)
    (double,) = stage.tritons().values()
    double.faults.fail_load["unlucky"] = "Internal: out of memory"
    stage.apply(a_model("unlucky").with_version(1, stage.put_model("unlucky.onnx", 5.0)))

    def told() -> None:
        (version,) = stage.kube.get("InferenceModel", "unlucky")["status"]["versions"]
        assert "out of memory" in version["message"], version

    eventually(told, because=stage.explain)
    assert set(stage.served_factors("one").values()) == {2.0}
    del double.faults.fail_load["unlucky"]
    stage.wait_ready("InferenceModel", "unlucky")


def test_wrong_answers_are_found(stage: Stage) -> None:
    served(stage)
    for double in stage.tritons().values():
        double.faults.nan.add("wrong")
    stage.apply(a_model("wrong").with_version(1, stage.put_model("wrong.onnx", 5.0)))
    stage.wait_condition("InferenceModel", "wrong", "Stalled", "True", reason="WrongAnswers")
    stage.wait_ready("InferenceModel", "one")


def test_restarted_keeper_changes_nothing(stage: Stage) -> None:
    served(stage)
    calls = stage.calls()
    (keeper,) = stage.kubelet.pods(stage.kube.namespace, "keeper")
    stage.kubelet.crash(keeper)
    stage.apply(a_model("after").with_version(1, stage.put_model("after.onnx", 5.0)))
    stage.wait_ready("InferenceModel", "after")
    assert set(stage.served_factors("one").values()) == {2.0}
    for pod, (loads, unloads) in stage.calls().items():
        assert {name: count for name, count in loads.items() if name != "after"} == calls[pod][0]
        assert unloads == calls[pod][1]
