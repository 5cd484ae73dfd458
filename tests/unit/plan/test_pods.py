from __future__ import annotations

from typing import Any

import pytest
from tests.observed import a_pod, an_ended_pod

from triton_operator.plan import pods

Object = dict[str, Any]


def a_triton_pod(state: Object, *, ip: str = "10.0.0.1", deleting: bool = False) -> Object:
    status = {"name": "triton", "state": state, "containerID": "containerd://1"}
    found = a_pod(container="triton", podIP=ip, containerStatuses=[status])
    if deleting:
        found["metadata"]["deletionTimestamp"] = "2026-07-01T12:00:00Z"
    return found


def waiting(reason: str, message: str = "") -> Object:
    return {"name": "triton", "state": {"waiting": {"reason": reason, "message": message}}}


def test_a_running_container_is_told_by_address_and_incarnation() -> None:
    found = pods.running(a_triton_pod({"running": {}}), "triton")
    assert found == pods.RunningContainer(
        pod="pod-1", uid="pod-1-uid", ip="10.0.0.1", container_id="containerd://1"
    )


@pytest.mark.parametrize(
    "pod",
    [
        a_triton_pod({"waiting": {"reason": "ContainerCreating"}}),
        a_triton_pod({"running": {}}, ip=""),
        a_triton_pod({"running": {}}, deleting=True),
        a_pod(),
    ],
)
def test_a_pod_that_starts_or_goes_has_no_running_container(pod: Object) -> None:
    assert pods.running(pod, "triton") is None


def test_another_container_of_the_pod_does_not_count() -> None:
    assert pods.running(a_triton_pod({"running": {}}), "sidecar") is None


def test_a_pod_on_its_way_out_is_not_ready() -> None:
    ready = a_pod(conditions=[{"type": "Ready", "status": "True"}])
    assert pods.is_ready(ready)
    ready["metadata"]["deletionTimestamp"] = "2026-07-01T12:00:00Z"
    assert not pods.is_ready(ready)
    assert not pods.is_ready(a_pod(conditions=[{"type": "Ready", "status": "False"}]))
    assert not pods.is_ready(a_pod())


def test_the_schedulers_words_come_before_the_kubelets() -> None:
    pod = a_pod(
        conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2"}],
        containerStatuses=[waiting("ImagePullBackOff")],
    )
    assert pods.waiting_trouble(pod) == ("Unschedulable", "0/2")


def test_a_container_that_is_merely_being_created_is_no_trouble() -> None:
    assert pods.waiting_trouble(a_pod(containerStatuses=[waiting("ContainerCreating")])) is None
    found = pods.waiting_trouble(a_pod(containerStatuses=[waiting("ImagePullBackOff", "no such image")]))
    assert found == ("ImagePullBackOff", "no such image")
    init = a_pod(initContainerStatuses=[waiting("CrashLoopBackOff")])
    assert pods.waiting_trouble(init) == ("CrashLoopBackOff", "CrashLoopBackOff")


def test_an_ended_pod_says_why_and_leaves_its_message() -> None:
    pod = an_ended_pod(code=137, message="killed")
    assert pods.failure(pod) == ("Error", "pod pod-1 ended with exit code 137 (Error)")
    assert pods.termination_message(pod) == "killed"
    assert pods.has_ended(pod)
    evicted = a_pod(reason="Evicted", message="The node was low on memory.", phase="Failed")
    assert pods.failure(evicted) == ("Evicted", "The node was low on memory.")
    assert pods.failure(an_ended_pod(code=0)) is None
    assert pods.termination_message(a_pod()) == ""
    assert not pods.has_ended(a_pod(phase="Running"))


def a_deployment(secret: str | None) -> Object:
    reference = {"valueFrom": {"secretKeyRef": {"name": secret, "key": "key"}}} if secret else {"value": "x"}
    field = {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    containers = [{"name": "triton", "env": [{"name": "KEY", **reference}, field]}, {"name": "sidecar"}]
    return {"spec": {"template": {"spec": {"containers": containers}}}}


def test_a_secret_is_made_when_nobody_shows_that_it_is_there() -> None:
    assert pods.needs_secret(None, [], "key-1")
    assert pods.needs_secret(a_deployment("key-0"), [], "key-1")
    assert pods.needs_secret(a_deployment(None), [], "key-1")
    missed = a_pod(containerStatuses=[waiting("CreateContainerConfigError", "secret not found")])
    assert pods.needs_secret(a_deployment("key-1"), [missed], "key-1")


def test_a_secret_that_pods_run_with_is_not_made_again() -> None:
    assert not pods.needs_secret(a_deployment("key-1"), [a_pod()], "key-1")
