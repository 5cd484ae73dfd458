"""A new version that is no good never answers a client: it is taken back, told why, and left alone."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from tests.integration.eventually import eventually
from tests.integration.operator.operator_process import FLEET_SECONDS

if TYPE_CHECKING:
    from tests.builders import ModelBuilder
    from tests.integration.operator.stage import Stage
    from tests.integration.triton_repository import Faults

CANDIDATE = "steady.candidate"


def answers_nan(faults: Faults) -> None:
    faults.nan.add(CANDIDATE)


def answers_wrong(faults: Faults) -> None:
    faults.opposite.add(CANDIDATE)


def is_refused(faults: Faults) -> None:
    faults.fail_load[CANDIDATE] = "Internal: out of memory"


def takes_too_long(faults: Faults) -> None:
    faults.slow_load[CANDIDATE] = 6.0


def crashes(faults: Faults) -> None:
    faults.crash_load.add(CANDIDATE)


def heal(faults: Faults) -> None:
    """Take every fault of candidates away."""
    for each in (faults.nan, faults.opposite, faults.crash_load):
        each.discard(CANDIDATE)
    for named in (faults.fail_load, faults.slow_load):
        named.pop(CANDIDATE, None)


BAD = {
    answers_nan: ("WrongAnswers", "NaN"),
    answers_wrong: ("WrongAnswers", "cosine"),
    is_refused: ("LoadFailed", "out of memory"),
    takes_too_long: ("LoadTimeout", "spec.loads.timeoutSeconds"),
    crashes: ("LoadCrashed", "the container ended while it loaded the model"),
}


def served_with(stage: Stage, fault: Any, *, replicas: int = 2) -> ModelBuilder:
    """Have version 1 served by pods on which candidates have a fault."""
    stage.set_up(replicas=replicas, loads={"timeoutSeconds": 3})
    model = stage.serve("steady", 2.0)
    for pod in stage.pods().values():
        fault(pod.faults)
    return model


def loads_of_the_candidate(stage: Stage) -> int:
    return sum(double.counts.loads[CANDIDATE] for double in stage.tritons().values())


@pytest.mark.parametrize("fault", BAD)
def test_bad_candidate_never_answers_a_client_and_is_taken_back(stage: Stage, fault: Any) -> None:
    reason, words = BAD[fault]
    model = served_with(stage, fault)
    before = stage.kube.get("InferenceModel", "steady")["status"]["versions"]
    with stage.asked({"steady": (2.0,), "steady/1": (2.0,)}):
        stage.apply(model.with_version(2, stage.put_model("2.onnx", 5.0)))
        found = stage.wait_condition("InferenceModel", "steady", "Stalled", "True", reason=reason)
        gone(stage)
    first, second = found["status"]["versions"]
    assert (second["state"], second["reason"], second["checks"][0]["reason"]) == ("Failed", reason, reason)
    assert words in second["message"]
    assert words in second["checks"][0]["message"]
    assert first == before[0], "something changed for the old version"
    assert "version 1 served meanwhile" in stage.message("InferenceModel", "steady")
    assert (2, reason) in stage.story("steady")
    stage.wait_event("steady", reason, "version 2", words, type_="Warning")
    for double in stage.tritons().values():
        assert double.counts.loads["steady"] == 0, "pods were told of the new version"


def gone(stage: Stage) -> None:
    """Wait until nothing is left of the candidate, neither on the volume nor on a pod."""

    def nothing_is_left() -> None:
        assert not (stage.tree() / CANDIDATE).exists()
        assert not (stage.tree() / "steady/2").exists()
        for double in stage.tritons().values():
            assert not double.repository.ready(CANDIDATE)

    eventually(nothing_is_left, because=stage.explain)


@pytest.mark.parametrize(("fault", "cosine"), [(answers_nan, 0.0), (answers_wrong, -1.0)])
def test_figures_of_wrong_answers_are_told(stage: Stage, fault: Any, cosine: float) -> None:
    model = served_with(stage, fault, replicas=1)
    stage.apply(model.with_version(2, stage.put_model("2.onnx", 5.0)))
    check = stage.wait_version("steady", 2, "Failed", reason="WrongAnswers")["checks"][0]
    assert float(check["cosine"]) == pytest.approx(cosine, abs=1e-3)
    assert check["minimumCosine"] == "0.99"
    assert check["maxError"]


def test_candidate_that_brings_its_container_down_does_it_once_on_one_pod(stage: Stage) -> None:
    model = served_with(stage, crashes)
    with stage.asked({"steady": (2.0,)}):
        stage.apply(model.with_version(2, stage.put_model("2.onnx", 5.0)))
        stage.wait_condition("InferenceModel", "steady", "Stalled", "True", reason="LoadCrashed")
        gone(stage)
        time.sleep(2 * FLEET_SECONDS)
    statuses = [pod["status"]["containerStatuses"][0] for pod in triton_pods(stage)]
    assert sorted(status["restartCount"] for status in statuses) == [0, 1]
    stage.wait_ready("TritonServer", "default")
    assert list(stage.served_factors("steady").values()) == [2.0, 2.0]


def triton_pods(stage: Stage) -> list[dict[str, Any]]:
    return stage.kube.list("Pod", "app.kubernetes.io/component=triton")


def test_load_that_is_refused_is_tried_three_times(stage: Stage) -> None:
    model = served_with(stage, is_refused)
    stage.apply(model.with_version(2, stage.put_model("2.onnx", 5.0)))
    second = stage.wait_version("steady", 2, "Failed", reason="LoadFailed")
    (host,) = (pod for pod, double in stage.tritons().items() if double.counts.loads[CANDIDATE])
    assert f"pod {host}" in second["message"], "the message doesn't name the pod"
    assert loads_of_the_candidate(stage) == 3
    time.sleep(2 * FLEET_SECONDS)
    assert loads_of_the_candidate(stage) == 3


def test_failed_version_is_left_alone_until_the_spec_of_its_serving_changes(stage: Stage) -> None:
    model = served_with(stage, answers_nan, replicas=1)
    model = model.with_version(2, stage.put_model("2.onnx", 5.0))
    stage.apply(model)
    stage.wait_condition("InferenceModel", "steady", "Stalled", "True", reason="WrongAnswers")
    gone(stage)
    stage.operator.kill()
    stage.operator.start()
    time.sleep(2 * FLEET_SECONDS)
    assert loads_of_the_candidate(stage) == 1
    (pod,) = stage.pods().values()
    heal(pod.faults)
    stage.apply(model.with_spec(serving={"dynamicBatching": {"maxQueueDelayMicroseconds": 100}}))
    stage.wait_ready("InferenceModel", "steady")
    assert list(stage.served_factors("steady").values()) == [5.0]


def test_failed_version_that_was_removed_and_added_again_is_tried_again(stage: Stage) -> None:
    model = served_with(stage, is_refused, replicas=1)
    with_second = model.with_version(2, stage.put_model("2.onnx", 5.0))
    stage.apply(with_second)
    stage.wait_condition("InferenceModel", "steady", "Stalled", "True", reason="LoadFailed")
    stage.apply(model)
    stage.wait_version("steady", 2, "Removed")
    stage.wait_ready("InferenceModel", "steady")
    (pod,) = stage.pods().values()
    heal(pod.faults)
    stage.apply(with_second)
    stage.wait_ready("InferenceModel", "steady")
    assert list(stage.served_factors("steady").values()) == [5.0]


def test_version_that_one_pod_refuses_is_taken_back_on_all(stage: Stage) -> None:
    stage.set_up(replicas=2)
    model = stage.serve("steady", 2.0)
    refusing, other = stage.pods().values()
    refusing.faults.fail_load["steady/2"] = "Internal: out of memory"
    with stage.asked({"steady/1": (2.0,)}):
        stage.apply(model.with_version(2, stage.put_model("2.onnx", 5.0)))
        stage.wait_condition("InferenceModel", "steady", "Stalled", "True", reason="LoadFailed")
        stage.wait_factors("steady", 2.0, 2.0)
        gone(stage)
    second = stage.wait_version("steady", 2, "Failed", reason="LoadFailed")
    assert refusing.name in second["message"]
    assert "out of memory" in second["message"]
    assert [reason for number, reason in stage.story("steady") if number == 2][-2:] == [
        "Promoted",
        "LoadFailed",
    ]
    doubles = stage.tritons()
    assert {double.repository.version_loads["steady", 1] for double in doubles.values()} == {1}
    assert doubles[refusing.name].counts.loads["steady"] <= 4, "three tries, and what takes it back"
    assert not doubles[other.name].repository.models["steady"].failed


def test_candidate_that_is_removed_while_it_loads_is_unloaded(stage: Stage) -> None:
    stage.set_up(replicas=2)
    model = stage.serve("steady", 2.0)
    for pod in stage.pods().values():
        pod.faults.slow_load[CANDIDATE] = 3.0
    with stage.asked({"steady": (2.0,)}):
        stage.apply(model.with_version(2, stage.put_model("2.onnx", 5.0)))
        stage.wait_version("steady", 2, "Candidate", reason="Trying")
        stage.apply(model)
        stage.wait_ready("InferenceModel", "steady")
        gone(stage)
    assert stage.wait_version("steady", 2, "Removed")
