"""What pods do other than the tree says is found at the next look, told, and put right."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from google.protobuf import json_format
from tests.integration.eventually import eventually
from tests.integration.operator.operator_process import FLEET_SECONDS
from tests.integration.triton.ground import a_config
from tritonclient.grpc import model_config_pb2

if TYPE_CHECKING:
    from tests.integration.operator.stage import Stage
    from tests.integration.triton_double import TritonDouble

FOUND_SECONDS = FLEET_SECONDS + 3.0


def at_rest(stage: Stage, *, replicas: int = 1) -> list[TritonDouble]:
    """Have two versions of a model served, and return the pods' doubles when all of them were looked at."""
    stage.set_up(replicas=replicas)
    model = stage.serve("steady", 2.0)
    stage.apply(model.with_version(2, stage.put_model("2.onnx", 5.0)))
    stage.wait_ready("InferenceModel", "steady")
    stage.wait_ready("TritonServer", "default")
    time.sleep(FLEET_SECONDS)
    return list(stage.tritons().values())


def test_model_that_was_unloaded_by_hand_is_loaded_again_and_told(stage: Stage) -> None:
    double, other = at_rest(stage, replicas=2)
    double.repository.unload("steady")

    def serves_again() -> None:
        assert set(double.repository.ready("steady")) == {1, 2}

    eventually(serves_again, within=FOUND_SECONDS, because=stage.explain)
    stage.wait_event(
        "default", "Drifted", double.identity, "model steady lacks version 1, 2", type_="Warning"
    )
    assert other.counts.loads["steady"] == 1, "the other pod has nothing to do with it"


def test_version_that_was_unloaded_by_hand_is_loaded_again_and_the_other_is_not(stage: Stage) -> None:
    (double,) = at_rest(stage)
    version = double.repository.ready("steady")[1]
    narrowed = model_config_pb2.ModelConfig()
    narrowed.CopyFrom(version.config)
    narrowed.version_policy.specific.versions.remove(2)
    with stage.asked({"steady/1": (2.0,)}):
        load_by_hand(double, "steady", narrowed)

        def serves_both_again() -> None:
            assert set(double.repository.ready("steady")) == {1, 2}

        eventually(serves_both_again, within=FOUND_SECONDS, because=stage.explain)
    stage.wait_event("default", "Drifted", "model steady lacks version 2", type_="Warning")
    assert double.repository.version_loads["steady", 1] == 1


def load_by_hand(double: TritonDouble, name: str, config: model_config_pb2.ModelConfig) -> None:
    """Load a model with a configuration as somebody does who has the control key."""
    double.repository.load(name, json_format.MessageToJson(config, preserving_proto_field_name=True))


def test_model_that_was_loaded_by_hand_is_unloaded_and_told(stage: Stage) -> None:
    stage.set_up(replicas=2)
    model = stage.serve("steady", 2.0)
    for pod in stage.pods().values():
        pod.faults.slow_load["steady.candidate"] = 10.0
    stage.apply(model.with_version(2, stage.put_model("2.onnx", 5.0)))
    stage.wait_version("steady", 2, "Candidate", reason="Trying")
    (double,) = (each for each in stage.tritons().values() if not each.counts.loads["steady.candidate"])
    double.faults.slow_load.clear()
    load_by_hand(double, "steady.candidate", a_config("steady.candidate", [2]))
    assert double.repository.ready("steady.candidate")

    def is_gone() -> None:
        assert not double.repository.ready("steady.candidate")

    eventually(is_gone, within=FOUND_SECONDS, because=stage.explain)
    words = "model steady.candidate is loaded, and should not be"
    stage.wait_event("default", "Drifted", double.identity, words, type_="Warning")
    assert double.counts.unloads["steady"] == 0


def test_other_configuration_that_was_loaded_by_hand_is_put_right(stage: Stage) -> None:
    (double,) = at_rest(stage)
    with stage.asked({"steady": (5.0,)}):
        load_by_hand(double, "steady", a_config("steady", [1, 2], fingerprint="by hand"))

        def is_put_right() -> None:
            fingerprint = double.repository.ready("steady")[1].config.parameters["triton-operator.io/config"]
            assert fingerprint.string_value != "by hand"

        eventually(is_put_right, within=FOUND_SECONDS, because=stage.explain)
    stage.wait_event("default", "Drifted", "model steady runs another configuration", type_="Warning")


def test_load_that_was_answered_and_did_nothing_is_noticed_and_repeated(stage: Stage) -> None:
    stage.set_up()
    stage.serve("other", 3.0)
    (pod,) = stage.pods().values()
    pod.faults.ignore_load.add("late")

    def told() -> None:
        message = stage.kube.get("InferenceModel", "late")["status"]["versions"][0]["message"]
        assert pod.name in message
        assert "the load was answered, but version 1 is not ready" in message

    stage.apply(stage.a_model("late", 2.0))
    eventually(told, because=stage.explain)
    stage.wait_condition("InferenceModel", "other", "Ready", "True")
    pod.faults.ignore_load.clear()
    stage.wait_ready("InferenceModel", "late")
    assert list(stage.served_factors("late").values()) == [2.0]


def test_reload_that_was_answered_and_did_nothing_is_noticed_and_repeated(stage: Stage) -> None:
    stage.set_up()
    model = stage.serve("steady", 2.0)
    (pod,) = stage.pods().values()
    pod.faults.ignore_load.add("steady")
    stage.apply(model.with_spec(serving={"dynamicBatching": {}}))

    def told() -> None:
        message = stage.message("InferenceModel", "steady")
        assert pod.name in message
        assert "it was answered, but the pod still serves something else" in message

    eventually(told, because=stage.explain)
    pod.faults.ignore_load.clear()
    stage.wait_ready("InferenceModel", "steady")


def test_pod_that_hangs_is_told_and_holds_up_nobody(stage: Stage) -> None:
    at_rest(stage, replicas=2)
    hanging, other = stage.pods().values()
    hanging.faults.hang = True

    def told() -> None:
        assert stage.kube.condition("TritonServer", "default", "Ready")[0] == "False"
        assert stage.in_service() == {other.name}

    eventually(told, within=30, because=stage.explain)
    stage.apply(stage.a_model("later", 7.0))

    def other_serves() -> None:
        assert stage.served_factors("later", pods=[other.name]) == {other.name: 7.0}

    eventually(other_serves, because=stage.explain)
    hanging.faults.hang = False
    stage.wait_ready("InferenceModel", "later")
    stage.wait_ready("TritonServer", "default")
    assert stage.in_service() == {hanging.name, other.name}


def test_another_server_at_a_pods_address_is_noticed_and_left_alone(stage: Stage) -> None:
    at_rest(stage, replicas=2)
    doubles = stage.tritons()
    taken, other = doubles
    doubles[taken].identity = "stranger-7d9c"
    stage.apply(stage.a_model("later", 7.0))

    def told() -> None:
        _, reason, message = stage.kube.condition("TritonServer", "default", "Ready")
        assert reason == "PodUnreachable"
        assert taken in message
        assert "stranger-7d9c: the address is another pod's by now" in message

    eventually(told, within=30, because=stage.explain)
    eventually(lambda: stage.answer(other, "later"), because=stage.explain)
    assert doubles[taken].counts.loads["later"] == 0, "the stranger was told to load"
    doubles[taken].identity = taken
    stage.wait_ready("InferenceModel", "later")


def test_load_that_is_refused_is_tried_three_times_and_again_after_a_restart(stage: Stage) -> None:
    stage.set_up(replicas=2)
    stage.serve("other", 3.0)
    refusing, _ = stage.pods().values()
    refusing.faults.fail_load["unlucky"] = "Internal: out of memory"
    stage.apply(stage.a_model("unlucky", 2.0))
    stage.wait_condition("InferenceModel", "unlucky", "Stalled", "True", reason="LoadFailed")
    message = stage.message("InferenceModel", "unlucky", "Stalled")
    assert f"pod {refusing.name}: load failed 3 times: " in message
    assert "out of memory" in message
    time.sleep(2 * FLEET_SECONDS)
    assert stage.tritons()[refusing.name].counts.loads["unlucky"] == 3
    (lacking,) = stage.kube.get("TritonServer", "default")["status"]["lacking"]
    assert (lacking["pod"], lacking["model"]) == (refusing.name, "unlucky")
    refusing.faults.fail_load.clear()
    stage.kubelet.crash(refusing)
    stage.wait_ready("InferenceModel", "unlucky")
    assert not stage.wait_ready("TritonServer", "default")["status"].get("lacking")
