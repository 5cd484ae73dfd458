"""The ground itself: pods, jobs and claims behave as the operator will find them on a real cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest
from tests.integration.eventually import eventually
from tests.integration.triton.ground import Ground, Volume, a_config
from tritonclient.grpc import service_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.kube import Kube
    from tests.integration.kubelet_double import KubeletDouble

COMPONENT = "app.kubernetes.io/component"
MOUNT = {"name": "repository", "mountPath": "/repository"}


def a_claim(name: str = "volume") -> dict[str, Any]:
    spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}


def a_pod(component: str, **container: Any) -> dict[str, Any]:
    volume = {"name": "repository", "persistentVolumeClaim": {"claimName": "volume"}}
    main = {"name": "main", "image": "test", "volumeMounts": [MOUNT], **container}
    return {
        "metadata": {"labels": {COMPONENT: component}},
        "spec": {"containers": [main], "volumes": [volume]},
    }


def a_job(name: str, script: str) -> dict[str, Any]:
    template = a_pod("script", command=["sh", "-c"], args=[script])
    template["spec"]["restartPolicy"] = "Never"
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"backoffLimit": 0, "template": template},
    }


def a_deployment(template: dict[str, Any], *, replicas: int = 1) -> dict[str, Any]:
    labels = template["metadata"]["labels"]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "main"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
    }


def conditions(obj: dict[str, Any]) -> dict[str, str]:
    return {each["type"]: each["status"] for each in obj.get("status", {}).get("conditions", [])}


def ended(kube: Kube, job: str, condition: str) -> dict[str, Any]:
    """Wait until a Job has a condition, and return its last pod's status."""

    def check() -> dict[str, Any]:
        assert conditions(kube.get("Job", job)).get(condition) == "True"
        return dict(kube.list("Pod", f"job-name={job}")[-1]["status"])

    return eventually(check)


@pytest.fixture
def held_jobs(kubelet: KubeletDouble) -> Iterator[None]:
    kubelet.switches.hold_jobs = True
    yield
    kubelet.switches.hold_jobs = False


def test_job_waits_for_its_claim_then_runs_on_the_volume(kube: Kube, kubelet: KubeletDouble) -> None:
    kube.create(a_job("writer", "echo hello > /repository/file; echo done > /dev/termination-log"))

    def unscheduled() -> None:
        assert [pod["status"]["conditions"][0].get("message") for pod in kube.list("Pod")] == [
            '0/2 nodes are available: persistentvolumeclaim "volume" not found'
        ]

    eventually(unscheduled)
    kube.create(a_claim())
    status = ended(kube, "writer", "Complete")
    assert status["containerStatuses"][0]["state"]["terminated"]["message"] == "done\n"
    assert (kubelet.volume(kube.namespace, "volume") / "file").read_text() == "hello\n"


def test_failed_job_keeps_its_pod_with_exit_code_and_message(kube: Kube) -> None:
    kube.create(a_claim())
    kube.create(a_job("failing", "echo because > /dev/termination-log; exit 10"))
    status = ended(kube, "failing", "Failed")
    terminated = status["containerStatuses"][0]["state"]["terminated"]
    assert (terminated["exitCode"], terminated["message"]) == (10, "because\n")
    failed = next(c for c in kube.get("Job", "failing")["status"]["conditions"] if c["type"] == "Failed")
    assert failed["reason"] == "BackoffLimitExceeded"


@pytest.mark.usefixtures("held_jobs")
def test_evicted_job_fails_and_says_so(kube: Kube, kubelet: KubeletDouble) -> None:
    kube.create(a_claim())
    kube.create(a_job("evicted", "true"))
    eventually(lambda: running(kube))
    kubelet.evict(kubelet.pods(kube.namespace, "script")[0])
    assert ended(kube, "evicted", "Failed")["reason"] == "Evicted"


@pytest.mark.usefixtures("held_jobs")
def test_job_whose_node_is_lost_fails(kube: Kube, kubelet: KubeletDouble) -> None:
    kube.create(a_claim())
    kube.create(a_job("lost", "true"))
    eventually(lambda: running(kube))
    kubelet.lose_node_of(kubelet.pods(kube.namespace, "script")[0])

    def failed() -> None:
        assert conditions(kube.get("Job", "lost")).get("Failed") == "True"
        assert kube.list("Pod") == []

    eventually(failed)


def running(kube: Kube) -> None:
    assert [pod["status"].get("phase") for pod in kube.list("Pod")] == ["Running"]


def test_deployment_of_triton_pods_serves_scales_and_goes(kube: Kube, kubelet: KubeletDouble) -> None:
    kube.create(a_claim())
    kube.create(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key"}, "stringData": {"key": "k1"}}
    )
    eventually(lambda: claim_is_bound(kube))
    volume = Volume(kubelet.volume(kube.namespace, "volume"))
    volume.put_engine("two", 2.0)
    volume.link("double", 1, "two")
    volume.put_config(a_config("double", [1]))
    arguments = [
        "--model-repository=/repository/servers/s/24.10",
        "--grpc-restricted-protocol=model-repository,model-config:header=$(KEY)",
    ]
    variable = {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "key", "key": "key"}}}
    kube.create(a_deployment(a_pod("triton", args=arguments, env=[variable]), replicas=2))
    eventually(lambda: ready_replicas(kube, 2))
    for double in kubelet.tritons(kube.namespace).values():
        ground = Ground(address=double.address, volume=volume, control=("header", "k1"))
        assert ground.infer("double")[1].tolist() == [[2.0] * 4]
        assert ground.states("double") == {"1": "READY"}
        ground.close()
    kube.patch("Deployment", "main", {"spec": {"replicas": 1}})
    eventually(lambda: number_of_pods(kube, 1))
    kube.delete("Deployment", "main")
    eventually(lambda: number_of_pods(kube, 0))
    assert kubelet.tritons(kube.namespace) == {}


def test_triton_is_called_by_its_pods_name_and_restarted_when_a_load_ends_it(
    kube: Kube, kubelet: KubeletDouble
) -> None:
    kube.create(a_claim())
    eventually(lambda: claim_is_bound(kube))
    volume = Volume(kubelet.volume(kube.namespace, "volume"))
    volume.put_engine("two", 2.0)
    volume.link("double", 1, "two")
    volume.put_config(a_config("double", [1]))
    volume.link("bad", 1, "two")
    volume.put_config(a_config("bad", []))
    name = {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    arguments = ["--id=$(POD_NAME)", "--model-repository=/repository/servers/s/24.10"]
    kube.create(a_deployment(a_pod("triton", args=arguments, env=[name])))
    eventually(lambda: ready_replicas(kube, 1))
    (pod,) = kubelet.pods(kube.namespace, "triton")
    pod.faults.crash_load.add("bad")
    ground = Ground(address=f"{pod.address}:8001", volume=volume, control=("header", "unused"))
    assert ground.stub.ServerMetadata(service_pb2.ServerMetadataRequest(), timeout=5).name == pod.name
    with pytest.raises(grpc.RpcError) as caught:
        ground.load("bad", a_config("bad", [1]))
    assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    ground.close()

    def restarted() -> None:
        status = kube.list("Pod")[0]["status"]["containerStatuses"][0]
        assert (status["ready"], status["restartCount"]) == (True, 1)
        assert status["lastState"]["terminated"]["exitCode"] == 139
        assert set(kubelet.tritons(kube.namespace)[pod.name].repository.ready("double")) == {1}

    eventually(restarted)


def claim_is_bound(kube: Kube) -> None:
    assert kube.get("PersistentVolumeClaim", "volume")["status"]["phase"] == "Bound"


def ready_replicas(kube: Kube, number: int) -> None:
    assert kube.get("Deployment", "main")["status"].get("readyReplicas") == number


def number_of_pods(kube: Kube, number: int) -> None:
    assert len(kube.list("Pod")) == number


def test_crashed_container_is_restarted_with_another_id(kube: Kube, kubelet: KubeletDouble) -> None:
    kube.create(a_claim())
    kube.create(a_deployment(a_pod("script", command=["sleep"], args=["1000"])))
    eventually(lambda: ready_replicas(kube, 1))
    before = kube.list("Pod")[0]["status"]["containerStatuses"][0]
    kubelet.crash(kubelet.pods(kube.namespace, "script")[0])

    def restarted() -> None:
        after = kube.list("Pod")[0]["status"]["containerStatuses"][0]
        assert after["ready"]
        assert after["restartCount"] == 1
        assert after["containerID"] != before["containerID"]

    eventually(restarted)


def test_missing_secret_holds_the_container(kube: Kube) -> None:
    kube.create(a_claim())
    variable = {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "absent", "key": "key"}}}
    kube.create(a_deployment(a_pod("script", command=["sleep"], args=["1000"], env=[variable])))

    def waiting() -> None:
        state = kube.list("Pod")[0]["status"]["containerStatuses"][0]["state"]
        assert state["waiting"] == {
            "reason": "CreateContainerConfigError",
            "message": 'secret "absent" not found',
        }

    eventually(waiting)
