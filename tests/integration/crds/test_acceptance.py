"""What the API server accepts, fills in, and shows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.integration.conftest import REPOSITORY
from tests.integration.crds.manifests import (
    ABSENT,
    KEY,
    SHA,
    a_calibrated_engine,
    a_calibrated_model,
    a_model,
    a_named_model,
    a_repository,
    a_repository_with_storage,
    a_server,
    a_tensorrt_model,
    an_engine,
    changed,
)

from triton_operator.resources import KINDS, Engine, InferenceModel, ModelRepository, TritonServer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.apiserver import ApiServer
    from tests.integration.crds.manifests import Manifest

READY = {
    "type": "Ready",
    "status": "True",
    "reason": "Served",
    "message": "versions 1,2 answer on all pods",
    "lastTransitionTime": "2026-07-01T12:00:00Z",
    "observedGeneration": 1,
}

GOOD = [
    a_model(),
    a_named_model(),
    changed(a_model(), "spec.modelName", "M" * 128),
    changed(a_model(), "spec.modelName", "text.v1-b_2"),
    changed(a_model(), "metadata.name", "m" * 128),
    changed(a_model(), "metadata.name", "text.v1"),
    changed(changed(a_model(), "metadata.name", "m" * 200), "spec.modelName", "m"),
    changed(a_model(), "spec.servers", ABSENT),
    changed(a_model(), "spec.versions.0.number", 2**31 - 1),
    changed(a_model(), "spec.serving", {"maxBatchSize": 0}),
    changed(
        a_model(),
        "spec.serving",
        {
            "maxBatchSize": 8,
            "dynamicBatching": {"preferredBatchSizes": [4, 8], "maxQueueDelayMicroseconds": 500},
            "instances": [{"count": 2, "kind": "CPU"}, {}],
            "parameters": {"intra_op_thread_count": "2"},
            "warmup": True,
            "labels": {"scores": ["cat", "", "dog: a 'good' one"], "o" * 256: ["l" * 256] * 16},
        },
    ),
    changed(a_model(), "spec.serving.labels", {f"y{n}": [str(k) for k in range(4096)] for n in range(4)}),
    changed(a_model(), "spec.suspend", value=True),
    changed(a_model(), "spec.check.samples", {"uri": "pvc://models/text/samples.npz", "sha256": SHA}),
    changed(a_model(), "spec.check.samples", {"uri": "pvc://models/a..b/samples.npz"}),
    *(
        changed(a_model(), "spec.versions.1.build", build)
        for build in (
            {"precision": "FP16", "keepIO": False},
            {"precision": "INT8"},
            {"precision": "INT8", "calibration": {"generated": True}},
            {"precision": "INT8", "calibration": {"uri": "oci://registry.example/data:1"}},
            {"precision": "INT8", "calibration": {"uri": "pvc://models/text/calibration.npz", "sha256": SHA}},
        )
    ),
    *(changed(a_model(), "spec.check.minimumCosine", cosine) for cosine in ("0", "1", "1.0", "0.999999")),
    a_server(),
    changed(a_server(), "metadata.name", "s" * 50),
    changed(a_server(), "spec.args", ["--log-verbose=1", "--backend-config=onnxruntime,x=1"]),
    changed(a_server(), "spec.args", ["--model-load-thread-count=2", "--http-header-forward-pattern=x"]),
    changed(a_server(), "spec.args", ["--grpc-max-connection-age-grace=1", "--infer-response"]),
    changed(a_server(), "spec.resources", {"limits": {"cpu": 4, "nvidia.com/gpu": "1"}}),
    changed(a_server(), "spec.tolerations", [{"key": "nvidia.com/gpu", "operator": "Exists"}, {}]),
    *(
        changed(a_server(), "spec.gpu", gpu)
        for gpu in (
            {},
            {"resource": "nvidia.com/mig-1g.10gb", "count": 2},
            {"product": "NVIDIA-A100-SXM4-80GB-MIG-1g.10gb", "computeCapability": "8.0", "memoryMiB": 9728},
            {"product": "", "computeCapability": "", "memoryMiB": 0},
            {"computeCapability": "12.0"},
        )
    ),
    changed(changed(a_server(), "spec.gpu", {}), "spec.resources", {"limits": {"cpu": 4}}),
    changed(
        changed(a_server(), "spec.gpu", {}),
        "spec.builds",
        {
            "maxConcurrent": 2,
            "whenNoFreeGPU": "BorrowReplica",
            "resources": {"limits": {"memory": "16Gi"}},
            "priorityClassName": "low",
            "queueName": "gpu-builds",
            "timeoutSeconds": 60,
            "tolerations": [{"operator": "Exists"}],
        },
    ),
    changed(a_server(), "spec.compilerImage", "registry.example/tensorrt@sha256:" + SHA),
    changed(a_server(), "spec.replicas", 0),
    changed(a_server(), "spec.loads", {"maxConcurrent": 1000, "timeoutSeconds": 86400}),
    changed(a_server(), "spec.shutdown", {"leaveSeconds": 0, "exitTimeoutSeconds": 1}),
    *(
        changed(a_server(), "spec.update", update)
        for update in (
            {"maxSurge": 0, "maxUnavailable": 1},
            {"maxSurge": "0%", "maxUnavailable": "100%"},
            {"maxSurge": "25%", "maxUnavailable": 0},
            {"maxUnavailable": "25%"},
            {},
        )
    ),
    *(changed(a_server(), "spec.disruption.maxUnavailable", most) for most in (0, 1000, "0%", "50%")),
    a_repository(),
    a_repository_with_storage(),
    *(
        changed(a_model(), "spec.versions.0.source", {"uri": uri, "secretName": "read"})
        for uri in (
            "s3://models/det 1/model.onnx",
            "gs://models/det/1",
            "az://models/det/1/model.onnx",
            "https://models.example:8443/det/1.onnx?X-Amz-Signature=0",
            "oci://registry.example:5000/models/det:1.0",
            f"oci://registry.example/models/det@sha256:{SHA}",
        )
    ),
    changed(
        a_model(), "spec.check.samples", {"uri": "https://models.example/s.npz?sig=0", "secretName": "read"}
    ),
    changed(a_repository(), "spec.allowedHosts", ["*.example", "minio.storage.svc:9000", "[fd00::7]:443"]),
    changed(a_repository(), "spec.allowedSecrets", ["s3-read"]),
    *(changed(a_repository(), "spec.maxSourceSize", size) for size in ("4Gi", "500M")),
    *(changed(a_repository(), "spec.engineRetention", text) for text in ("0s", "1h30m", "0.5h")),
    an_engine(),
]

ALLOWED_CHANGES = [
    (a_model(), "spec.versions.0.source.uri", "pvc://elsewhere/1.onnx"),
    (a_model(), "spec.versions.2", {"number": 3, "source": {"uri": "pvc://models/text/3.onnx"}}),
    (a_model(), "spec.versions", [a_model()["spec"]["versions"][1]]),
    (a_model(), "spec.versions", [*reversed(a_model()["spec"]["versions"])]),
    (a_model(), "spec.versions.0.build", {"maxBatchSize": 16}),
    (a_model(), "spec.versions.0.build", {"precision": "FP32", "keepIO": True}),
    (a_tensorrt_model(), "spec.versions.0.build.maxBatchSize", 20),
    (changed(a_model(), "spec.versions.0.build.maxBatchSize", 16), "spec.versions.0.build", {}),
    (a_tensorrt_model(), "spec.serving", {"maxBatchSize": 20}),
    (a_calibrated_model(), "spec.versions.0.build.calibration.secretName", "rotated"),
    (a_calibrated_model(), "spec.versions.0.build.calibration.secretName", ABSENT),
    (a_calibrated_engine(), "spec.build.calibration.uri", "s3://data/moved.npz"),
    (a_calibrated_engine(), "spec.build.calibration.secretName", "rotated"),
    (a_model(), "spec.servers", ["l4"]),
    (a_model(), "spec.serving", {"maxBatchSize": 4}),
    (a_model(), "spec.suspend", True),
    (a_model(), "spec.check.samples", {"uri": "pvc://models/text/samples.npz"}),
    (a_named_model(), "spec.check.minimumCosine", "0.9"),
    (a_server(), "spec.image", "registry.example/tritonserver:26.08-py3"),
    (a_server(), "spec.replicas", 3),
    (a_server(), "spec.gpu", {"product": "NVIDIA-L4"}),
    (a_server(), "spec.shutdown", {"leaveSeconds": 60}),
    (a_repository(), "spec.engineRetention", "30m"),
    (a_repository_with_storage(), "spec.keeper", {"nodeSelector": {"disk": "ssd"}}),
    (an_engine(), "spec.source.uri", "pvc://elsewhere/1.onnx"),
    (an_engine(), "spec.minimumCosine", "0.9"),
    (an_engine(), "spec.source.secretName", "rotated"),
    (a_repository(), "spec.allowedHosts", ["models.example"]),
]


def _stored(server: ApiServer, namespace: str, manifest: Manifest) -> dict[str, Any]:
    created = server.kubectl("create", "-n", namespace, "-o", "json", "-f", "-", manifest=manifest)
    assert created.returncode == 0, created.stderr
    result: dict[str, Any] = json.loads(created.stdout)
    return result


def _with_status(server: ApiServer, namespace: str, manifest: Manifest, status: Manifest) -> None:
    stored = _stored(server, namespace, manifest)
    replaced = server.kubectl(
        "replace", "--subresource=status", "-n", namespace, "-f", "-", manifest=stored | {"status": status}
    )
    assert replaced.returncode == 0, replaced.stderr


def _table(server: ApiServer, namespace: str, kind: str) -> list[list[str]]:
    shown = server.kubectl("get", kind, "-n", namespace)
    assert shown.returncode == 0, shown.stderr
    return [line.split() for line in shown.stdout.splitlines()]


@pytest.mark.parametrize("manifest", GOOD, ids=lambda manifest: str(manifest["kind"]))
def test_good_input_is_accepted(api_server: ApiServer, *, manifest: Manifest) -> None:
    answer = api_server.kubectl("apply", "--dry-run=server", "-f", "-", manifest=manifest)

    assert answer.returncode == 0, answer.stderr
    assert not answer.stderr


@pytest.mark.parametrize(("base", "path", "value"), ALLOWED_CHANGES, ids=lambda value: str(value)[:40])
def test_allowed_change_is_accepted(
    api_server: ApiServer, namespace: str, *, base: Manifest, path: str, value: object
) -> None:
    _stored(api_server, namespace, base)

    answer = api_server.kubectl("replace", "-n", namespace, "-f", "-", manifest=changed(base, path, value))

    assert answer.returncode == 0, answer.stderr


def test_server_side_apply_adds_a_version_beside_those_of_another_manager(
    api_server: ApiServer, namespace: str
) -> None:
    _stored(api_server, namespace, a_model())
    third = {"number": 3, "source": {"uri": "pvc://models/text/3.onnx"}}
    addition = changed(a_model(), "spec", {"backend": "ONNXRuntime", "versions": [third]})

    api_server.kubectl(
        "apply", "--server-side", "--field-manager=other", "-n", namespace, "-f", "-", manifest=addition
    )

    shown = api_server.kubectl(
        "get", "tmodel/text", "-n", namespace, "-o", "jsonpath={.spec.versions[*].number}"
    )
    assert shown.stdout == "1 2 3"


def test_crds_are_established_without_complaint(api_server: ApiServer) -> None:
    for kind in KINDS:
        crd = api_server.get(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{kind.KIND.crd_name}")
        conditions = {each["type"]: each["status"] for each in crd["status"]["conditions"]}
        assert conditions == {"NamesAccepted": "True", "Established": "True"}


def test_defaults_are_filled_in(api_server: ApiServer, namespace: str) -> None:
    minimal = changed(
        a_model(),
        "spec",
        {"backend": "ONNXRuntime", "versions": [{"number": 1, "source": {"uri": "pvc://models/1.onnx"}}]},
    )

    model = _stored(api_server, namespace, minimal)
    server = _stored(api_server, namespace, a_server())
    repository = _stored(api_server, namespace, a_repository_with_storage())

    assert model["spec"]["servers"] == ["default"]
    defaults = {"precision": "FP32", "keepIO": True}
    assert model["spec"]["versions"][0]["build"] == defaults
    assert model["spec"]["check"] == {"minimumCosine": "0.99"}
    assert model["spec"]["serving"] == {"warmup": False}
    assert model["spec"]["suspend"] is False
    assert server["spec"]["repository"] == "default"
    assert server["spec"]["replicas"] == 1
    assert server["spec"]["shmSize"] == "64Mi"
    assert server["spec"]["service"] == {"type": "ClusterIP"}
    assert server["spec"]["allowedBackends"] == ["ONNXRuntime", "OpenVINO", "TensorRT"]
    assert server["spec"]["loads"] == {"maxConcurrent": 8, "timeoutSeconds": 600}
    assert server["spec"]["update"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert server["spec"]["disruption"] == {"maxUnavailable": 1}
    assert server["spec"]["shutdown"] == {"leaveSeconds": 15, "exitTimeoutSeconds": 10}
    assert not {"gpu", "builds", "compilerImage"} & server["spec"].keys()
    assert repository["spec"]["engineRetention"] == "168h"
    assert repository["spec"]["prepare"] == {"timeoutSeconds": 3600}
    assert repository["spec"]["storage"]["accessModes"] == ["ReadWriteMany"]


def test_defaults_of_gpus_are_filled_in(api_server: ApiServer, namespace: str) -> None:
    with_gpu = changed(changed(a_server(), "spec.gpu", {}), "spec.builds", {})

    spec = _stored(api_server, namespace, with_gpu)["spec"]

    unsaid = {"product": "", "computeCapability": "", "memoryMiB": 0}
    assert spec["gpu"] == {"resource": "nvidia.com/gpu", "count": 1, **unsaid}
    assert spec["builds"] == {"maxConcurrent": 1, "timeoutSeconds": 3600, "whenNoFreeGPU": "Wait"}


def test_objects_that_nobody_looked_at_yet_are_not_taken_for_ready(
    api_server: ApiServer, namespace: str
) -> None:
    for manifest in (a_model(), a_server(), a_repository(), an_engine()):
        assert _stored(api_server, namespace, manifest)["status"] == {"observedGeneration": -1}


def test_stored_objects_are_read_and_written_back_unchanged(api_server: ApiServer, namespace: str) -> None:
    for kind, manifest in (
        (InferenceModel, a_named_model()),
        (TritonServer, changed(changed(a_server(), "spec.gpu", {}), "spec.builds", {})),
        (ModelRepository, a_repository_with_storage()),
        (Engine, an_engine()),
    ):
        stored = _stored(api_server, namespace, manifest)

        written = kind.parse(stored).to_manifest()

        answer = api_server.kubectl("replace", "-n", namespace, "-o", "json", "-f", "-", manifest=written)
        assert answer.returncode == 0, answer.stderr
        assert json.loads(answer.stdout)["metadata"]["generation"] in {1, 2}
        assert kind.parse(json.loads(answer.stdout)).spec == kind.parse(stored).spec


def test_kubectl_get_shows_models(api_server: ApiServer, namespace: str) -> None:
    status = {
        "observedGeneration": 1,
        "servers": "a10,l4",
        "versionsWanted": "1,2",
        "versionsServing": "1,2",
        "conditions": [READY],
        "versions": [{"number": 1, "state": "Promoted", "pods": "2/2"}],
    }
    _with_status(api_server, namespace, a_model(), status)

    header, row = _table(api_server, namespace, "tmodel")

    assert header == ["NAME", "SERVERS", "BACKEND", "VERSIONS", "SERVING", "READY", "REASON", "AGE"]
    assert row[:-1] == ["text", "a10,l4", "ONNXRuntime", "1,2", "1,2", "True", "Served"]


def test_kubectl_get_shows_servers(api_server: ApiServer, namespace: str) -> None:
    target = {"product": "NVIDIA-A10", "computeCapability": "8.6", "memoryMiB": 23028}
    target |= {"resource": "nvidia.com/gpu"}
    status = {"release": "26.07", "pods": "2/2", "models": 3, "conditions": [READY], "observedGeneration": 1}
    status |= {"target": target}
    _with_status(api_server, namespace, a_server(), status)

    header, row = _table(api_server, namespace, "tserver")

    columns = ["REPOSITORY", "RELEASE", "TARGET", "PODS", "MODELS", "READY", "REASON", "AGE"]
    assert header == ["NAME", *columns]
    assert row[:-1] == ["a10", "default", "26.07", "NVIDIA-A10", "2/2", "3", "True", "Served"]


def test_kubectl_get_shows_repositories(api_server: ApiServer, namespace: str) -> None:
    status = {"claim": "models", "bytesFree": "9.8Gi", "engines": 4, "conditions": [READY]}
    _with_status(api_server, namespace, a_repository(), status)

    header, row = _table(api_server, namespace, "trepo")

    assert header == ["NAME", "CLAIM", "FREE", "ENGINES", "READY", "REASON", "AGE"]
    assert row[:-1] == ["default", "models", "9.8Gi", "4", "True", "Served"]


def test_kubectl_get_shows_engines(api_server: ApiServer, namespace: str) -> None:
    tensor = {"name": "images", "datatype": "FP32", "shape": [-1, 3, 224, 224]}
    status = {
        "models": "text/1,text/2",
        "usedBy": ["text/1", "text/2"],
        "target": "cpu",
        "precision": "FP32",
        "progress": 42,
        "build": {"job": "tensorrt-1", "seconds": 95, "heldSeconds": 80, "compilerSeconds": 71},
        "size": "97.8Mi",
        "sizeBytes": 102_500_000,
        "attempt": 1,
        "unusedSince": "2026-07-01T12:00:00Z",
        "signature": {"inputs": [tensor], "outputs": [tensor]},
        "conditions": [READY],
    }
    _with_status(api_server, namespace, an_engine(), status)

    header, row = _table(api_server, namespace, "tengine")

    assert header == ["NAME", "MODELS", "TARGET", "PRECISION", "PROGRESS", "SIZE", "READY", "REASON", "AGE"]
    told = ["text/1,text/2", "cpu", "FP32", "42", "97.8Mi", "True", "Served"]
    assert row[:-1] == [f"onnxruntime-{KEY[:16]}", *told]


def test_history_and_verdicts_of_a_model_are_kept(api_server: ApiServer, namespace: str) -> None:
    time = "2026-07-01T12:00:00Z"
    entry = {"time": time, "version": 2, "reason": "Promoted", "message": "version 2: promoted"}
    check = {
        "engine": "onnxruntime-1",
        "minimumCosine": "0.99",
        "config": "5f1c0a9e2b7d4c11",
        "samples": "samples-5f1c0a9e2b7d4c11",
        "reason": "LoadTimeout",
    }
    versions = [
        {"number": 1, "state": "Promoted", "servedSince": time},
        {"number": 2, "state": "Candidate", "checks": [check]},
    ]
    whole = {"time": time, "reason": "Suspended", "message": "left as it is"}
    status = {"observedGeneration": 1, "versions": versions, "history": [entry, whole]}
    _with_status(api_server, namespace, a_model(), status)

    shown = api_server.kubectl("get", "tmodel/text", "-n", namespace, "-o", "json")

    found = json.loads(shown.stdout)["status"]
    assert found == status
    assert InferenceModel.parse(json.loads(shown.stdout)).to_manifest()["status"]["history"] == [entry, whole]


def test_pods_that_lack_a_model_are_kept(api_server: ApiServer, namespace: str) -> None:
    lacking = [{"pod": f"triton-a10-{n}", "model": "text", "message": "version 2: refused"} for n in (1, 2)]
    _with_status(api_server, namespace, a_server(), {"observedGeneration": 1, "lacking": lacking})

    shown = api_server.kubectl("get", "tserver/a10", "-n", namespace, "-o", "json")

    assert json.loads(shown.stdout)["status"]["lacking"] == lacking
    assert TritonServer.parse(json.loads(shown.stdout)).to_manifest()["status"]["lacking"] == lacking


def test_kubectl_get_triton_shows_all_four_kinds(api_server: ApiServer, namespace: str) -> None:
    for manifest in (a_model(), a_server(), a_repository(), an_engine()):
        _stored(api_server, namespace, manifest)

    shown = api_server.kubectl("get", "triton", "-n", namespace, "-o", "name")

    assert sorted(shown.stdout.split()) == [
        f"engine.triton-operator.io/onnxruntime-{KEY[:16]}",
        "inferencemodel.triton-operator.io/text",
        "modelrepository.triton-operator.io/default",
        "tritonserver.triton-operator.io/a10",
    ]


def test_kubectl_wait_for_ready_returns(api_server: ApiServer, namespace: str) -> None:
    _with_status(api_server, namespace, a_model(), {"observedGeneration": 1, "conditions": [READY]})

    waited = api_server.kubectl(
        "wait", "--for=condition=Ready", "--timeout=5s", "-n", namespace, "tmodel/text"
    )

    assert waited.stdout == "inferencemodel.triton-operator.io/text condition met\n"


def test_kubectl_scale_sets_replicas(api_server: ApiServer, namespace: str) -> None:
    status = {"replicas": 1, "selector": "triton-operator.io/server=a10", "observedGeneration": 1}
    _with_status(api_server, namespace, a_server(), status)

    api_server.kubectl("scale", "tserver/a10", "--replicas=5", "-n", namespace)

    path = f"/apis/triton-operator.io/v1alpha1/namespaces/{namespace}/tritonservers/a10/scale"
    scale = api_server.get(path)
    assert scale["spec"] == {"replicas": 5}
    assert scale["status"] == {"replicas": 1, "selector": "triton-operator.io/server=a10"}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (
            "tmodel.spec.versions",
            ("number <integer> -required-", "source <Object> -required-", "add a new number"),
        ),
        ("tserver.spec.gpu", ("computeCapability <string>", "Example: nvidia.com/mig-1g.10gb")),
        ("tserver.spec.args", ("FIELD: args <[]string>", "Example: ['--log-verbose=1']")),
        ("trepo.spec.engineRetention", ("Default: 168h (a week)",)),
        ("tengine.spec.source", ("uri <string> -required-", "lies now; it may change")),
    ],
)
def test_kubectl_explain_reads_well(api_server: ApiServer, *, path: str, expected: tuple[str, ...]) -> None:
    shown = api_server.kubectl("explain", path)

    assert shown.returncode == 0, shown.stderr
    for text in expected:
        assert text in " ".join(shown.stdout.split())


def test_kubectl_explain_recursive_lists_the_fields_of_a_version(api_server: ApiServer) -> None:
    shown = api_server.kubectl("explain", "tmodel.spec.versions", "--recursive")

    assert shown.stdout.partition("FIELDS:\n")[2] == (
        "  build\t<Object>\n"
        "    calibration\t<Object>\n"
        "      generated\t<boolean>\n"
        "      secretName\t<string>\n"
        "      sha256\t<string>\n"
        "      uri\t<string>\n"
        "    keepIO\t<boolean>\n"
        "    maxBatchSize\t<integer>\n"
        "    optimizationLevel\t<integer>\n"
        "    portability\t<string>\n"
        "    enum: Exact, SameComputeCapability, AmperePlus\n"
        "    precision\t<string>\n"
        "    enum: FP32, TF32, FP16, BF16, ....\n"
        "    profiles\t<[]Object>\n"
        "      inputs\t<[]Object> -required-\n"
        "        max\t<[]integer> -required-\n"
        "        min\t<[]integer> -required-\n"
        "        name\t<string> -required-\n"
        "        opt\t<[]integer> -required-\n"
        "    workspacePercent\t<integer>\n"
        "  number\t<integer> -required-\n"
        "  source\t<Object> -required-\n"
        "    secretName\t<string>\n"
        "    sha256\t<string>\n"
        "    uri\t<string> -required-\n\n"
    )


EXAMPLES = sorted(
    path for path in (REPOSITORY / "examples").rglob("*.yaml") if "triton-operator.io/" in path.read_text()
)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_examples_are_accepted(api_server: ApiServer, namespace: str, path: Path) -> None:
    applied = api_server.kubectl("apply", "--dry-run=server", "-n", namespace, "-f", str(path))
    assert applied.returncode == 0, applied.stderr
