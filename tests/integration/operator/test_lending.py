"""GPUs are scarce: builds wait for a free one, or borrow a server's, and give it back."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from tests.builders import a_claim, a_model, a_repository, a_server
from tests.integration.eventually import eventually
from tests.integration.operator.stage import SOURCES
from tests.told import condition_of, summary

from triton_operator.plan import names
from triton_operator.plan.lending import BORROW_AFTER_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.builders import ModelBuilder
    from tests.integration.operator.stage import Stage

Object = dict[str, Any]

A10 = {"product": "NVIDIA-A10", "computeCapability": "8.6", "memoryMiB": 23028}
BORROWS = {"whenNoFreeGPU": "BorrowReplica"}


@pytest.fixture
def stage(stage: Stage) -> Iterator[Stage]:
    """A stage whose switches are as before when the test has ended."""
    yield stage
    stage.kubelet.switches.hold_jobs = False
    stage.kubelet.switches.gpus.pop(stage.kube.namespace, None)


def serve_on_gpus(stage: Stage, *, gpus: int, builds: Object) -> ModelBuilder:
    """Have version 1 served by as many pods as there are GPUs, and return the model."""
    stage.kubelet.switches.gpus[stage.kube.namespace] = gpus
    server = a_server().with_replicas(gpus).with_spec(gpu=A10, builds=builds)
    stage.apply(a_claim(SOURCES), a_repository(), server)
    stage.sources()
    model = a_model("text").with_spec(backend="TensorRT").with_version(1, stage.put_model("1.onnx", 2.0))
    stage.apply(model)
    stage.wait_ready("InferenceModel", "text")
    stage.wait_ready("TritonServer", "default")
    return model


def add_version(stage: Stage, model: ModelBuilder) -> str:
    """Add version 2, and return the engine whose compile pod waits for a GPU then."""
    before = {job["metadata"]["name"] for job in compile_jobs(stage)}
    stage.apply(model.with_version(2, stage.put_model("2.onnx", 3.0)))

    def waits() -> str:
        (job,) = (job for job in compile_jobs(stage) if job["metadata"]["name"] not in before)
        name: str = job["metadata"]["labels"][names.ENGINE]
        ready = condition_of(stage.kube.get("Engine", name), "Ready")
        assert ready["reason"] in ("Unschedulable", "BorrowingGPU"), ready
        assert "Insufficient nvidia.com/gpu" in ready["message"]
        return name

    return eventually(waits, because=stage.explain)


def compile_jobs(stage: Stage) -> list[Object]:
    return stage.kube.list("Job", "app.kubernetes.io/component=compile")


def deployment(stage: Stage) -> Object:
    return stage.kube.get("Deployment", "triton-default")


def is_lent(stage: Stage) -> bool:
    return names.LENT in deployment(stage)["metadata"]["annotations"]


def wait_returned(stage: Stage, *, replicas: int) -> None:
    def check() -> None:
        assert not is_lent(stage)
        assert deployment(stage)["spec"]["replicas"] == replicas

    eventually(check, because=stage.explain)


def wait_engine(stage: Stage, name: str, *words: str) -> Object:
    """Wait until an engine's condition says all this."""

    def check() -> Object:
        found = stage.kube.get("Engine", name)
        assert all(word in condition_of(found, "Ready")["message"] for word in words), summary(found)
        return found

    return eventually(check, because=stage.explain)


def test_the_only_gpu_is_lent_to_a_build_and_comes_back_after_a_restart(stage: Stage) -> None:
    model = serve_on_gpus(stage, gpus=1, builds=BORROWS)
    engine = add_version(stage, model)
    stage.kubelet.switches.hold_jobs = True
    stage.wait_condition("TritonServer", "default", "Ready", "False", reason="Lent")
    message = stage.message("TritonServer", "default")
    assert f"1 of 1 replicas lent to the build of engine {engine}" in message
    assert "requests fail" in message
    wait_engine(stage, engine, "on a GPU borrowed from TritonServer default")
    assert stage.pods() == {}

    (pod,) = (each for each in stage.kubelet.pods(stage.kube.namespace, "compile") if not each.has_ended)
    uid = stage.kube.get("Pod", pod.name)["metadata"]["uid"]
    place = stage.volume() / ".staging" / uid
    place.mkdir()
    (place / "progress").write_text("42\n")
    found = wait_engine(stage, engine, "compiling, 42 %")
    assert found["status"]["progress"] == 42

    stage.operator.kill()
    stage.kubelet.switches.hold_jobs = False
    eventually(lambda: wait_ended(stage, engine))
    assert is_lent(stage)
    stage.operator.start()
    stage.wait_ready("InferenceModel", "text")
    wait_returned(stage, replicas=1)
    assert set(stage.served_factors("text").values()) == {3.0}
    stage.wait_ready("TritonServer", "default")
    stage.wait_event("default", "Lent", engine)
    stage.wait_event("default", "Returned", engine)
    status = stage.kube.get("Engine", engine)["status"]
    assert "progress" not in status
    assert status["build"]["heldSeconds"] >= status["build"]["compilerSeconds"]


def wait_ended(stage: Stage, engine: str) -> None:
    (job,) = (job for job in compile_jobs(stage) if job["metadata"]["labels"][names.ENGINE] == engine)
    assert job["status"].get("succeeded") == 1


def test_one_of_two_is_lent_while_the_other_answers(stage: Stage) -> None:
    model = serve_on_gpus(stage, gpus=2, builds=BORROWS)
    with stage.asked({"text": (2.0, 3.0)}):
        engine = add_version(stage, model)
        stage.kubelet.switches.hold_jobs = True
        stage.wait_condition("TritonServer", "default", "Ready", "True", reason="Lent")
        message = stage.message("TritonServer", "default")
        assert f"1 of 2 replicas lent to the build of engine {engine}" in message
        found = stage.kube.get("TritonServer", "default")
        assert (found["spec"]["replicas"], deployment(stage)["spec"]["replicas"]) == (2, 1)
        stage.kubelet.switches.hold_jobs = False
        stage.wait_ready("InferenceModel", "text")
        wait_returned(stage, replicas=2)
        stage.wait_factors("text", 3.0, 3.0)
    stage.wait_event(engine, "BorrowingGPU", "default")


def test_new_release_is_built_on_the_gpu_of_the_former_which_comes_back_as_it_was(stage: Stage) -> None:
    serve_on_gpus(stage, gpus=1, builds=BORROWS)
    update = {"maxSurge": 0, "maxUnavailable": 1}  # there is no GPU for one more
    image = "triton-operator/triton-cpu:24.11-py3"
    stage.kubelet.switches.hold_jobs = True
    stage.kube.patch("TritonServer", "default", {"spec": {"image": image, "update": update}})
    stage.wait_condition("TritonServer", "default", "Reconciling", "True", reason="Lent")

    def alone() -> None:
        assert (stage.pods(), release(stage)) == ({}, "24.10")
        assert "text/1" in stage.message("TritonServer", "default")

    eventually(alone, because=stage.explain)
    stage.kubelet.switches.hold_jobs = False
    stage.wait_ready("TritonServer", "default")
    stage.wait_ready("InferenceModel", "text")
    assert release(stage) == "24.11"
    wait_returned(stage, replicas=1)
    assert set(stage.served_factors("text").values()) == {2.0}


def release(stage: Stage) -> str:
    labels: dict[str, str] = deployment(stage)["spec"]["template"]["metadata"]["labels"]
    return labels[names.RELEASE]


def test_builds_wait_unless_told_to_borrow_and_a_vanished_job_gives_back(stage: Stage) -> None:
    model = serve_on_gpus(stage, gpus=1, builds={})
    engine = add_version(stage, model)
    time.sleep(BORROW_AFTER_SECONDS + 2)  # that nothing happens can't be polled for
    assert not is_lent(stage)
    assert set(stage.served_factors("text").values()) == {2.0}

    stage.kubelet.switches.hold_jobs = True
    stage.kube.patch("TritonServer", "default", {"spec": {"builds": BORROWS}})
    wait_engine(stage, engine, "on a GPU borrowed from TritonServer default")
    stage.operator.kill()
    for job in compile_jobs(stage):
        stage.kube.delete("Job", job["metadata"]["name"])
        stage.wait_gone("Job", job["metadata"]["name"])
    stage.operator.start()
    wait_returned(stage, replicas=1)
    stage.wait_event("default", "Returned", engine)
