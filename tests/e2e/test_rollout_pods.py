"""Pods end, crash, lack a model, or are changed by hand: the others answer, and it is put right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.builders import a_model
from tests.e2e.cluster import kubectl
from tests.e2e.traffic import assert_unnoticed, settled, traffic
from tests.integration.kube import ApiError
from tests.told import condition_of

from load import analysis, multiply

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.stage import Stage

Object = dict[str, Any]

SERVING = "triton-operator.io/serving"
LEAVE_SECONDS = 9
KEPT_SECONDS = 4.0
"""A client that keeps connections for less than a pod takes to leave loses none."""
HEALED_SECONDS = 30
TOO_MANY_REQUESTS = 429


@pytest.fixture(scope="module")
def served(new_stage: Callable[[str], Stage]) -> Stage:
    """Two pods that serve two versions of one model, and take their time to leave."""
    found = new_stage("rollout-pods")
    server = found.a_server().with_shutdown(leave_seconds=LEAVE_SECONDS, exit_timeout_seconds=2)
    found.set_up(server=server, replicas=2)
    model = a_model("main").with_version(1, found.put_model("main-1.onnx", 2.0))
    found.apply(model.with_version(2, found.put_model("main-2.onnx", 3.0)))
    found.wait_ready("InferenceModel", "main")
    return found


def all_serve(stage: Stage) -> None:
    """Fail unless both pods are ready and answer by both versions."""
    pods = stage.pods()
    assert [condition_of(pod, "Ready").get("status") for pod in pods] == ["True", "True"]
    assert set(stage.served_factors("main", version=1).values()) == {2.0}
    assert set(stage.served_factors("main", version=2).values()) == {3.0}


def test_pods_come_back_with_both_versions_without_operator_and_keeper(served: Stage) -> None:
    killed, deleted = served.pods()
    memory = shared_memory(served, killed)
    with served.installation.stopped():
        served.kube.patch("Deployment", "keeper-default", {"spec": {"replicas": 0}})
        served.eventually(lambda: no_keeper(served))
        served.kill(killed)
        served.kube.delete("Pod", deleted["metadata"]["name"])

        def back() -> None:
            names = served.pod_names()
            assert deleted["metadata"]["name"] not in names
            (status,) = served.kube.get("Pod", killed["metadata"]["name"])["status"]["containerStatuses"]
            assert status["restartCount"] > killed["status"]["containerStatuses"][0]["restartCount"]
            all_serve(served)

        served.eventually(back)
    assert shared_memory(served, killed) <= memory  # what a killed Triton leaves would fill it in time
    served.wait_ready("ModelRepository", "default")
    served.wait_ready("InferenceModel", "main")


def shared_memory(stage: Stage, pod: Object) -> int:
    """Return how many files a pod has in its shared memory."""
    return len(within(stage, pod["metadata"]["name"], "ls /dev/shm").split())


def no_keeper(stage: Stage) -> None:
    assert stage.pods("keeper") == []


def test_model_unloaded_by_hand_is_put_back_and_told(served: Stage) -> None:
    pod = served.pod_names()[0]
    served.unload(pod, "main")

    def healed() -> None:
        assert any(pod in message for message in served.events("default").get("Drifted", []))
        all_serve(served)

    served.eventually(healed, within=HEALED_SECONDS)
    served.wait_ready("InferenceModel", "main")


def test_only_services_select_by_what_leaves_a_pod_out(served: Stage) -> None:
    kube = served.kube
    for name in ("triton-default", "triton-default-pods"):
        assert kube.get("Service", name)["spec"]["selector"][SERVING] == "true"
    budget = kube.get("PodDisruptionBudget", "triton-default")
    assert (budget["spec"]["maxUnavailable"], budget["status"]["expectedPods"]) == (1, 2)
    replica_sets = kube.list("ReplicaSet", "triton-operator.io/server=default")
    assert all(each["spec"]["template"]["metadata"]["labels"][SERVING] == "true" for each in replica_sets)
    for each in (budget, *replica_sets):
        assert SERVING not in each["spec"]["selector"]["matchLabels"]


def test_evictions_take_one_pod_at_a_time_and_no_request(served: Stage) -> None:
    if not served.cluster.is_local:
        pytest.skip("CLUSTER=current: a forwarded port ends with its pod")
    first, second = served.pod_names()
    served.eventually(lambda: evictable(served))
    with traffic(served, multiply("main", {1: 2.0, 2: 3.0}), max_age=KEPT_SECONDS) as run:
        served.evict(first)
        with pytest.raises(ApiError) as refused:
            served.evict(second)
        assert refused.value.status == TOO_MANY_REQUESTS
        served.eventually(lambda: served.evict(second))

        def replaced() -> None:
            names = {
                pod["metadata"]["name"]
                for pod in served.kube.list("Pod", "triton-operator.io/server=default")
            }
            assert not {first, second} & names
            all_serve(served)

        served.eventually(replaced)
        records = run.stop()
    assert_unnoticed(records)


def evictable(stage: Stage) -> None:
    assert stage.kube.get("PodDisruptionBudget", "triton-default")["status"]["disruptionsAllowed"] == 1


def test_pod_that_can_not_load_a_model_gets_no_requests_until_it_can(served: Stage) -> None:
    poor = served.pod_names()[0]
    model = a_model("late").with_version(1, served.put_model("late.onnx", 5.0))
    within(served, poor, "dd if=/dev/zero of=/dev/shm/full bs=64k; true")  # Python backends load through it
    served.apply(model)
    served.eventually(lambda: is_left_out(served, poor, "late"))
    with traffic(served, multiply("late", {1: 5.0})) as run:
        since = served.eventually(lambda: settled(run))
        served.installation.restart()
        served.eventually(lambda: is_left_out(served, poor, "late"))
        within(served, poor, "rm /dev/shm/full")
        served.apply(model.with_serving(parameters={"another": "try"}))
        served.wait_ready("InferenceModel", "late")
        served.eventually(lambda: is_let_in(served, poor))
        served.eventually(lambda: settled(run))
        records = run.stop()
    assert_unnoticed(analysis.scheduled_within(records, begin=since))
    served.discard("late")


def within(stage: Stage, pod: str, command: str) -> str:
    return kubectl("-n", stage.namespace, "exec", pod, "--", "sh", "-c", command).stdout


def is_left_out(stage: Stage, pod: str, model: str) -> None:
    lacking = stage.kube.get("TritonServer", "default")["status"].get("lacking", [])
    assert [(each["pod"], each["model"]) for each in lacking] == [(pod, model)]
    assert stage.kube.get("Pod", pod)["metadata"]["labels"][SERVING] == "false"
    assert any(pod in message for message in stage.events("default")["LeftOut"])


def is_let_in(stage: Stage, pod: str) -> None:
    assert stage.kube.get("TritonServer", "default")["status"].get("lacking", []) == []
    assert stage.kube.get("Pod", pod)["metadata"]["labels"][SERVING] == "true"
