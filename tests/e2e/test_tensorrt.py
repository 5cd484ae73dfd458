"""TensorRT engines on nodes with GPUs: real Jobs, real plans of TensorRT for RTX, on pods' volume.

The nodes' GPUs are capacity and labels. So a stand-in for Triton's TensorRT backend looks at the plans, and
answers by the models that they were compiled from.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
from tests.builders import a_model, a_repository
from tests.e2e.cluster import kubectl
from tests.e2e.gpus import A10, GPU, KINDS, L4, SMALL, Kind, a_gpu_server, plan_of, taken
from tests.e2e.samples import Sample
from tests.onnx_models import SIZE, write_dense, write_determinant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.builders import ModelBuilder
    from tests.e2e.cluster import Cluster
    from tests.e2e.stage import Stage

Object = dict[str, Any]

VOLUME = "16Mi"
PRECISIONS = {1: "FP16", 2: "INT8"}
SLOW = {"requests": SMALL["requests"], "limits": {"cpu": "50m"}}
EDGE = 724
FULL_BYTES = EDGE * EDGE * 4
"""Of a model that is large for the volume."""
INPUTS = np.random.default_rng(1).normal(size=(8, SIZE)).astype(np.float32)


def a_tensorrt_model(name: str, *kinds: Kind) -> ModelBuilder:
    return a_model(name).with_spec(backend="TensorRT").with_servers(*(kind.server for kind in kinds))


@pytest.fixture(scope="module")
def gpus(cluster: Cluster, new_stage: Callable[[str], Stage]) -> Iterator[Stage]:
    """Two servers, on A10 and on L4, which serve a model in FP16 and in INT8; no test breaks it."""
    if not cluster.is_local:
        pytest.skip("CLUSTER=current: the images that compile and serve without a GPU are not there")
    found = new_stage("tensorrt")
    found.apply(a_repository().with_spec(storage={"size": VOLUME}))
    found.apply(*(a_gpu_server(found, kind) for kind in KINDS))
    found.add_sources()
    found.apply(detector(found, "detector"))
    found.wait_ready("InferenceModel", "detector")
    yield found
    found.leave()  # and its GPUs are free for others


def detector(stage: Stage, name: str) -> ModelBuilder:
    """Return the model of `examples/tensorrt`, made of a net that rounding changes a little."""
    uri = stage.put_written("dense.onnx", write_dense)
    calibration = io.BytesIO()
    np.savez(calibration, x=INPUTS)
    int8 = {"precision": "INT8", "calibration": {"uri": stage.put("calibration.npz", calibration.getvalue())}}
    model = a_tensorrt_model(name, A10, L4)
    return model.with_version(1, uri, build={"precision": "FP16"}).with_version(2, uri, build=int8)


def engines_of(stage: Stage, model: str, number: int = 1) -> list[Object]:
    return [stage.kube.get("Engine", name) for name in stage.version_of(model, number)["engines"]]


def compiled_for(stage: Stage, model: str, kind: Kind, number: int = 1) -> Object:
    (found,) = (
        each
        for each in engines_of(stage, model, number)
        if each["spec"].get("target", {}).get("product") == kind.product
    )
    return found


def jobs_of(stage: Stage, engine: str) -> list[Object]:
    return stage.kube.list("Job", f"triton-operator.io/engine={engine}")


def builds(stage: Stage) -> set[str]:
    """Return all Jobs that make engines, and not those that only look at a source."""
    wanted = "app.kubernetes.io/component in (prepare, compile)"
    return {job["metadata"]["uid"] for job in stage.kube.list("Job", wanted)}


def build_pods(stage: Stage, engine: str) -> list[Object]:
    return stage.kube.list("Pod", f"triton-operator.io/engine={engine}")


def answers(stage: Stage, kind: Kind, model: str, number: int) -> np.ndarray:
    """Return what the pod on a kind of GPU answers to INPUTS."""
    (pod,) = stage.kube.list(
        "Pod", f"triton-operator.io/server={kind.server},app.kubernetes.io/component=triton"
    )
    sample = Sample(Path(), {"x": INPUTS}, {"y": np.empty(0)})
    return stage.ask(pod["metadata"]["name"], model, sample, protocol="grpc", version=number)["y"]


def the_sources_own(tmp_path: Path) -> np.ndarray:
    session = onnxruntime.InferenceSession(write_dense(tmp_path / "dense.onnx"))
    return np.asarray(session.run(None, {"x": INPUTS})[0])


@pytest.mark.parametrize("number", PRECISIONS)
def test_version_is_prepared_once_and_compiled_for_each_gpu_on_its_node(gpus: Stage, number: int) -> None:
    found = engines_of(gpus, "detector", number)
    (prepared,) = (each["metadata"]["name"] for each in found if "source" in each["spec"])
    assert len(found) == 1 + len(KINDS)
    assert len(jobs_of(gpus, prepared)) == 1
    for kind in KINDS:
        engine = compiled_for(gpus, "detector", kind, number)
        name = engine["metadata"]["name"]
        assert engine["spec"]["from"] == prepared
        (pod,) = build_pods(gpus, name)
        assert pod["spec"]["nodeName"] == kind.node
        assert pod["spec"]["containers"][0]["resources"]["limits"][GPU] == "1"
        assert engine["status"]["attempt"] == 1
        assert engine["status"]["precision"] == PRECISIONS[number]
        assert f"detector/{number}" in engine["status"]["usedBy"]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.server)
@pytest.mark.parametrize("number", PRECISIONS)
def test_plan_on_the_volume_is_whole_and_for_its_gpu(gpus: Stage, number: int, kind: Kind) -> None:
    engine = compiled_for(gpus, "detector", kind, number)
    plan = plan_of(gpus, engine["metadata"]["name"])
    assert plan.header.size == plan.size == plan.report["plan"]["bytes"]
    assert plan.is_for(kind)
    assert plan.report["target"]["product"] == kind.product
    assert plan.report["compiler"] == {"module": "tensorrt_rtx", "version": plan.header.version_text}
    assert plan.report["options"]["precision"] == PRECISIONS[number]
    assert engine["status"]["sizeBytes"] > plan.size


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.server)
def test_every_pod_answers_almost_as_the_source(gpus: Stage, kind: Kind, tmp_path: Path) -> None:
    expected = the_sources_own(tmp_path)
    errors = {n: np.abs(answers(gpus, kind, "detector", n) - expected).max() for n in PRECISIONS}
    assert 0 < errors[1] < errors[2] < 0.2


def test_status_tells_of_every_engine_and_check(gpus: Stage) -> None:
    for number in PRECISIONS:
        version = gpus.version_of("detector", number)
        compiled = {compiled_for(gpus, "detector", kind, number)["metadata"]["name"] for kind in KINDS}
        assert (version["state"], version["pods"]) == ("Promoted", "2/2")
        assert {check["engine"]: check["reason"] for check in version["checks"]} == dict.fromkeys(
            compiled, "Succeeded"
        )


def test_second_model_of_the_same_content_needs_no_gpu(gpus: Stage) -> None:
    before = builds(gpus)
    gpus.apply(detector(gpus, "copy"))
    gpus.wait_ready("InferenceModel", "copy")
    assert builds(gpus) <= before
    assert gpus.version_of("copy", 2)["engines"] == gpus.version_of("detector", 2)["engines"]


def test_operator_that_tensorrt_lacks_is_told_and_the_other_version_serves(gpus: Stage) -> None:
    model = a_tensorrt_model("half", L4).with_version(1, gpus.put_model("half-1.onnx", 2.0))
    gpus.apply(model)
    gpus.wait_ready("InferenceModel", "half")
    gpus.apply(model.with_version(2, gpus.put_written("half-2.onnx", write_determinant)))
    gpus.wait_stalled("InferenceModel", "half", "UnsupportedOperator")
    failed = gpus.version_of("half", 2)
    assert (failed["state"], failed["reason"]) == ("Failed", "UnsupportedOperator")
    assert "Det" in failed["message"]
    assert gpus.version_of("half", 1)["state"] == "Promoted"
    assert set(answers(gpus, L4, "half", 1).ravel() / INPUTS.ravel()) == {2.0}


def test_build_whose_pod_is_killed_is_tried_again_and_ends_well(gpus: Stage) -> None:
    gpus.kube.patch("TritonServer", L4.server, {"spec": {"builds": {"resources": SLOW}}})
    gpus.apply(a_tensorrt_model("killed", L4).with_version(1, gpus.put_model("killed.onnx", 3.0)))
    pod = gpus.eventually(lambda: compiling(gpus, "killed"))
    gpus.kube.patch("TritonServer", L4.server, {"spec": {"builds": {"resources": SMALL | {"limits": None}}}})
    gpus.kill(pod)
    gpus.wait_ready("InferenceModel", "killed")
    engine = compiled_for(gpus, "killed", L4)
    assert engine["status"]["attempt"] == 2
    plan = plan_of(gpus, engine["metadata"]["name"])
    assert plan.is_for(L4)
    assert plan.header.size == plan.size


def compiling(stage: Stage, model: str) -> Object:
    """Return the pod that compiles a model for the L4 at this moment."""
    (pod,) = build_pods(stage, compiled_for(stage, model, L4)["metadata"]["name"])
    (status,) = pod["status"]["containerStatuses"]
    assert "running" in status["state"], status
    return pod


def test_build_on_a_full_volume_goes_on_when_there_is_room(gpus: Stage) -> None:
    uri = gpus.put_written("full.onnx", lambda path: write_dense(path, size=EDGE))
    with filled(gpus, leave=2 * FULL_BYTES):  # it can be prepared, and then not compiled
        gpus.apply(a_tensorrt_model("full", L4).with_version(1, uri))

        def told() -> None:
            engine = compiled_for(gpus, "full", L4)["metadata"]["name"]
            assert gpus.kube.condition("Engine", engine, "Reconciling")[:2] == ("True", "VolumeFull")
            assert not any(path.startswith(engine) for path in gpus.on_volume(below="store"))

        gpus.eventually(told)
    gpus.wait_ready("InferenceModel", "full")
    assert compiled_for(gpus, "full", L4)["status"]["attempt"] >= 2


@contextlib.contextmanager
def filled(stage: Stage, *, leave: int) -> Iterator[None]:
    """Have no more than so many bytes free on the repository's volume while the context is open."""
    keeper = ("-n", stage.namespace, "exec", "deployment/keeper-default", "--", "sh", "-c")
    free = "$(df --output=avail -B1 /repository | tail -n1)"
    kubectl(*keeper, f"head -c $(({free} - {leave})) /dev/zero > /repository/.ballast")
    try:
        yield
    finally:
        kubectl(*keeper, "rm /repository/.ballast")


def test_build_that_finds_no_free_gpu_says_so_and_begins_when_one_is_free(gpus: Stage) -> None:
    with taken(gpus, L4):
        gpus.apply(a_tensorrt_model("patient", L4).with_version(1, gpus.put_model("patient.onnx", 5.0)))

        def told() -> None:
            engine = compiled_for(gpus, "patient", L4)["metadata"]["name"]
            status, reason, message = gpus.kube.condition("Engine", engine, "Reconciling")
            assert (status, reason) == ("True", "Unschedulable"), message
            (pod,) = build_pods(gpus, engine)
            (scheduled,) = (c for c in pod["status"]["conditions"] if c["type"] == "PodScheduled")
            assert scheduled["message"] in message
            assert f"Insufficient {GPU}" in message

        gpus.eventually(told)
    gpus.wait_ready("InferenceModel", "patient")
    assert compiled_for(gpus, "patient", L4)["status"]["attempt"] == 1
