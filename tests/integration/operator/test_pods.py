"""Pods come, go and fail, and requests reach those that can answer them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.integration.eventually import eventually
from tests.integration.triton_repository import Faults

if TYPE_CHECKING:
    from tests.integration.operator.stage import Stage


def served(stage: Stage, *, replicas: int) -> None:
    """Have a model of two versions served, and another beside it."""
    stage.set_up(replicas=replicas)
    stage.serve("other", 3.0)
    model = stage.serve("steady", 2.0)
    stage.apply(model.with_version(2, stage.put_model("2.onnx", 5.0)))
    stage.wait_ready("InferenceModel", "steady")
    stage.wait_ready("TritonServer", "default")


def wait_in_service(stage: Stage, *pods: str) -> None:
    def check() -> None:
        assert stage.in_service() == set(pods)

    eventually(check, because=stage.explain)


def new_pods(stage: Stage, before: set[str], number: int = 1) -> list[str]:
    """Wait until so many pods have come, and return their names."""

    def check() -> list[str]:
        found = [name for name in stage.tritons() if name not in before]
        assert len(found) == number
        return found

    return eventually(check, because=stage.explain)


def test_new_pod_that_can_not_load_a_model_gets_no_requests_until_it_can(stage: Stage) -> None:
    served(stage, replicas=1)
    (old,) = stage.pods()
    stage.kubelet.switches.faults[stage.kube.namespace] = Faults(fail_load={"steady": "Internal: no memory"})
    stage.apply(stage.a_server(replicas=2))
    (new,) = new_pods(stage, {old})

    def told() -> None:
        status = stage.kube.get("TritonServer", "default")["status"]
        assert [(each["pod"], each["model"]) for each in status["lacking"]] == [(new, "steady")]
        assert "no memory" in status["lacking"][0]["message"]

    eventually(told, because=stage.explain)
    stage.wait_event("default", "LeftOut", new, type_="Warning")
    assert stage.in_service() == {old}
    with stage.asked({"steady": (5.0,), "other": (3.0,)}):
        stage.pods()[new].faults.fail_load.clear()
        stage.kubelet.crash(stage.pods()[new])
        wait_in_service(stage, old, new)
    stage.wait_event("default", "LetIn", new)
    stage.wait_ready("InferenceModel", "steady")


def test_only_pod_serves_on_what_it_can(stage: Stage) -> None:
    served(stage, replicas=1)
    (pod,) = stage.pods().values()
    pod.faults.fail_load["steady"] = "Internal: no memory"
    stage.kubelet.crash(pod)

    def told() -> None:
        assert stage.kube.condition("TritonServer", "default", "Ready")[1] == "ModelsMissing"

    eventually(told, because=stage.explain)
    wait_in_service(stage, pod.name)
    assert list(stage.served_factors("other").values()) == [3.0]


def test_restarted_container_in_which_one_version_fails_serves_the_other(stage: Stage) -> None:
    served(stage, replicas=2)
    pod, other = stage.pods().values()
    pod.faults.fail_load["steady/2"] = "Internal: no memory"
    stage.kubelet.crash(pod)
    stage.wait_event("default", "LeftOut", pod.name, type_="Warning")
    assert stage.in_service() == {other.name}
    with stage.asked({"steady": (5.0,), "steady/1": (2.0,), "other": (3.0,)}):

        def serves_the_first() -> None:
            assert stage.answer(pod.name, "steady", version=1)[1][0] == 2.0

        eventually(serves_the_first, because=stage.explain)
    assert list(stage.served_factors("steady", pods=[other.name]).values()) == [5.0]


def test_never_more_pods_are_left_out_than_in(stage: Stage) -> None:
    served(stage, replicas=3)
    *failing, good = stage.pods().values()
    for pod in failing:
        pod.faults.fail_load["steady"] = "Internal: no memory"
        stage.kubelet.crash(pod)

    def one_is_left_out() -> None:
        found = stage.in_service()
        assert good.name in found
        assert len(found) == 2

    eventually(one_is_left_out, because=stage.explain)


def test_pods_come_and_go_without_operator_and_keeper_and_nothing_is_lost(stage: Stage) -> None:
    served(stage, replicas=2)
    stage.operator.kill()
    stage.kube.patch("Deployment", "keeper-default", {"spec": {"replicas": 0}})
    eventually(lambda: no_keeper(stage))
    with stage.asked({"steady": (5.0,), "steady/1": (2.0,), "other": (3.0,)}):
        crashed, deleted = stage.pods().values()
        stage.kubelet.crash(crashed)
        wait_in_service(stage, *stage.pods())
        before = set(stage.pods())
        stage.kube.delete("Pod", deleted.name)
        (new,) = new_pods(stage, before)
        wait_in_service(stage, crashed.name, new)
        stage.kube.patch("Deployment", "triton-default", {"spec": {"replicas": 3}})
        (third,) = new_pods(stage, {*before, new})
        wait_in_service(stage, crashed.name, new, third)
        assert list(stage.served_factors("steady", pods=stage.in_service()).values()) == [5.0] * 3
    stage.operator.start()
    stage.wait_ready("InferenceModel", "steady")
    stage.wait_ready("TritonServer", "default")
    assert {loads["steady"] for loads, _ in stage.calls().values() if "steady" in loads} <= {1}


def no_keeper(stage: Stage) -> None:
    assert stage.kubelet.pods(stage.kube.namespace, "keeper") == []


def test_pod_that_starts_while_a_version_is_tried_leaves_the_candidate_alone(stage: Stage) -> None:
    stage.set_up()
    model = stage.serve("steady", 2.0)
    (pod,) = stage.pods().values()
    pod.faults.slow_load["steady.candidate"] = 6.0
    stage.apply(model.with_version(2, stage.put_model("2.onnx", 5.0)))
    stage.wait_version("steady", 2, "Candidate", reason="Trying")
    stage.apply(stage.a_server(replicas=2))
    (new,) = new_pods(stage, {pod.name})
    assert stage.tritons()[new].repository.ready("steady.candidate") == {}
    stage.wait_ready("InferenceModel", "steady")
    stage.wait_factors("steady", 5.0, 5.0)
    assert stage.tritons()[new].counts.loads["steady.candidate"] == 0


def test_rolling_update_and_deleted_pods_lose_no_request(stage: Stage) -> None:
    served(stage, replicas=2)
    with stage.asked({"steady": (5.0,), "steady/1": (2.0,), "other": (3.0,)}):
        before = set(stage.pods())
        stage.apply(stage.a_server(replicas=2, env=[{"name": "ANOTHER", "value": "1"}]))
        both = new_pods(stage, before, 2)
        wait_in_service(stage, *both)
        stage.kube.delete("Pod", both[0])
        (third,) = new_pods(stage, {*before, *both})
        wait_in_service(stage, both[1], third)
        stage.wait_ready("TritonServer", "default")
    stage.wait_ready("InferenceModel", "steady")


def test_disruption_budget_says_how_many_pods_a_drain_may_take(stage: Stage) -> None:
    stage.set_up(replicas=2, disruption={"maxUnavailable": "50%"})
    stage.serve("steady", 2.0)
    budget = stage.kube.get("PodDisruptionBudget", "triton-default")
    assert budget["spec"]["maxUnavailable"] == "50%"
    labels = budget["spec"]["selector"]["matchLabels"]
    selected = stage.kube.list("Pod", ",".join(f"{key}={value}" for key, value in labels.items()))
    assert {pod["metadata"]["name"] for pod in selected} == set(stage.pods())
    stage.kube.delete("PodDisruptionBudget", "triton-default")
    eventually(lambda: stage.kube.get("PodDisruptionBudget", "triton-default"), because=stage.explain)
