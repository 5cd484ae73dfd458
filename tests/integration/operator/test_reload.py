"""Another configuration is written to the tree, then loaded by every pod; nothing is built or tried."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf import text_format
from tests.integration.eventually import eventually
from tests.onnx_models import SIZE
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc
from tritonclient.utils import deserialize_bytes_tensor

if TYPE_CHECKING:
    from tests.integration.operator.stage import Stage

BATCHING = {"dynamicBatching": {"maxQueueDelayMicroseconds": 100}}
LABELS = {"labels": {"y": ["cat", "dog", "owl", "elk"]}}
CHANGES: list[tuple[dict[str, Any], str]] = [
    (BATCHING, "dynamic_batching"),
    ({"instances": [{"count": 2, "kind": "CPU"}]}, "instance_group"),
    ({"parameters": {"intra_op_thread_count": "2"}}, "parameters"),
    ({"warmup": True}, "model_warmup"),
    (LABELS, "labels"),
]


def config_of(stage: Stage, model: str) -> model_config_pb2.ModelConfig:
    """Return the configuration in the tree."""
    text = (stage.tree() / model / "config.pbtxt").read_text()
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def test_other_serving_is_loaded_by_every_pod_without_a_build(stage: Stage) -> None:
    stage.set_up(replicas=2)
    model = stage.serve("steady", 2.0)
    stage.serve("other", 3.0)
    jobs = {job["metadata"]["uid"] for job in stage.kube.list("Job")}
    with stage.asked({"steady": (2.0,), "steady/1": (2.0,), "other": (3.0,)}):
        for number, (serving, field) in enumerate(CHANGES, start=1):
            model = model.with_spec(serving={**model.build()["spec"].get("serving", {}), **serving})
            stage.apply(model)
            stage.wait_ready("InferenceModel", "steady")
            for double in stage.tritons().values():
                (version,) = double.repository.ready("steady").values()
                assert version.config == config_of(stage, "steady")
                assert double.repository.version_loads["steady", 1] == 1 + number
            stage.wait_event("steady", "Reloading", f"{field} changed", "loads version 1 anew")
    for double in stage.tritons().values():
        assert double.repository.version_loads["other", 1] == 1
        assert double.counts.loads["steady.candidate"] == 0
    assert {job["metadata"]["uid"] for job in stage.kube.list("Job")} <= jobs, "something was built"


def test_status_counts_the_pods_with_the_new_configuration(stage: Stage) -> None:
    stage.set_up(replicas=2)
    model = stage.serve("steady", 2.0)
    slow, _ = stage.pods().values()
    slow.faults.slow_load["steady"] = 4.0
    stage.apply(model.with_spec(serving=BATCHING))

    def half_way() -> None:
        status, reason, message = stage.kube.condition("InferenceModel", "steady", "Ready")
        assert (status, reason) == ("False", "Reloading")
        assert "loaded on 2/2 pods of TritonServer default, 1 with the new configuration" in message

    eventually(half_way, because=stage.explain)
    stage.wait_ready("InferenceModel", "steady")


def test_configuration_that_pods_refuse_leaves_the_old_one_serving(stage: Stage) -> None:
    stage.set_up(replicas=2)
    model = stage.serve("steady", 2.0)
    for pod in stage.pods().values():
        pod.faults.fail_load["steady"] = "Internal: no such parameter"
    with stage.asked({"steady": (2.0,)}):
        stage.apply(model.with_spec(serving=BATCHING))
        stage.wait_condition("InferenceModel", "steady", "Stalled", "True", reason="LoadFailed")
        assert "no such parameter" in stage.message("InferenceModel", "steady", "Stalled")
        for pod in stage.pods().values():
            del pod.faults.fail_load["steady"]
        stage.apply(model)
        stage.wait_ready("InferenceModel", "steady")


def classes(stage: Stage, pod: str, model: str) -> list[str]:
    """Ask a pod for the two best classes of 1, 4, 3, 2."""
    request = service_pb2.ModelInferRequest(model_name=model)
    tensor = request.inputs.add(name="x", datatype="FP32", shape=[1, SIZE])
    tensor.contents.fp32_contents.extend([1, 4, 3, 2])
    request.outputs.add(name="y").parameters["classification"].int64_param = 2
    with grpc.insecure_channel(stage.tritons()[pod].address) as channel:
        response = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=10)
    return [each.decode() for each in deserialize_bytes_tensor(response.raw_output_contents[0])]


def test_classes_are_called_by_the_labels_of_the_spec(stage: Stage) -> None:
    stage.set_up()
    model = stage.serve("steady", 1.0, serving=LABELS)
    (pod,) = stage.tritons()
    assert classes(stage, pod, "steady") == ["4.000000:1:dog", "3.000000:2:owl"]
    with stage.asked({"steady": (1.0,)}):
        stage.apply(model.with_spec(serving={"labels": {"y": ["Katze", "Hund", "Eule", "Elch"]}}))
        stage.wait_ready("InferenceModel", "steady")
    assert classes(stage, pod, "steady") == ["4.000000:1:Hund", "3.000000:2:Eule"]
    stage.apply(model.with_spec(serving={}))
    stage.wait_ready("InferenceModel", "steady")
    assert classes(stage, pod, "steady") == ["4.000000:1", "3.000000:2"]
    assert [entry.name for entry in (stage.tree() / "steady").iterdir() if entry.suffix == ".txt"] == []


def test_labels_of_what_is_no_output_are_told_and_the_model_serves_on(stage: Stage) -> None:
    stage.set_up()
    model = stage.serve("steady", 2.0)
    stage.apply(model.with_spec(serving={"labels": {"scores": ["cat"]}}))
    stage.wait_condition("InferenceModel", "steady", "Stalled", "True", reason="UnknownOutput")
    assert "scores" in stage.message("InferenceModel", "steady", "Stalled")
    assert "y" in stage.message("InferenceModel", "steady", "Stalled")
    assert list(stage.served_factors("steady").values()) == [2.0]


def test_configuration_changes_together_with_a_new_version(stage: Stage) -> None:
    stage.set_up(replicas=2)
    model = stage.serve("steady", 2.0)
    with stage.asked({"steady": (2.0, 5.0), "steady/1": (2.0,)}):
        stage.apply(model.with_version(2, stage.put_model("2.onnx", 5.0)).with_spec(serving=BATCHING))
        stage.wait_ready("InferenceModel", "steady")
    for double in stage.tritons().values():
        configs = [version.config for version in double.repository.ready("steady").values()]
        assert configs == [config_of(stage, "steady")] * 2
