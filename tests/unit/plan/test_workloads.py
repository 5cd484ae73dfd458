"""Deployments, Services and Jobs as they reach the API server: security, placement, volumes, arguments."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import a_model, a_repository, a_server
from tests.observed import an_engine, engine_of, model, repository, server, sha

from engine_builder.__main__ import _parser as builder_parser
from triton_operator.plan import jobs, keeper_workload, names, podspec, target, triton_workload
from triton_operator.plan.outcome import OutcomeError
from triton_operator.plan.podspec import Images
from triton_operator.plan.samples import entry
from triton_operator.resources.engine import Engine
from triton_operator.resources.gpu import TargetStatus
from triton_operator.resources.triton_server import OWNED_FLAGS

Object = dict[str, Any]

IMAGES = Images(engine_builder="registry/engine-builder:1", pull_policy="Never", pull_secrets=("login",))
MODEL = model(a_model("detector").with_version(1, "pvc://sources/a$$b.onnx", sha256=sha("1")), generation=4)
SETTINGS = {
    "nodeSelector": {"disk": "ssd"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
    "resources": {"limits": {"cpu": 2, "memory": "4Gi"}},
}


def a_prepare_job(attempt: int = 3, **settings: Any) -> Object:
    engine = Engine.parse(an_engine(engine_of(MODEL, 1), uri="pvc://sources/a$$b.onnx"))
    found = repository(a_repository("models").with_spec(prepare=settings))
    return jobs.prepare(engine=engine, attempt=attempt, repository=found, images=IMAGES)


def a_remote_job(uri: str = "s3://models/a$$b.onnx", secret: str | None = "s3-read", **spec: Any) -> Object:  # noqa: S107
    """Return the Job that prepares an engine from elsewhere; the repository allows what it needs."""
    engine = Engine.parse(an_engine(engine_of(MODEL, 1)))
    source = engine.spec.source.model_copy(update={"uri": uri, "secret_name": secret})
    engine = engine.model_copy(update={"spec": engine.spec.model_copy(update={"source": source})})
    allowed = {"allowedHosts": ["minio.storage.svc:9000"], "allowedSecrets": ["s3-read"]}
    found = repository(a_repository("models").with_spec(**{"prepare": SETTINGS, **allowed, **spec}))
    return jobs.prepare(engine=engine, attempt=1, repository=found, images=IMAGES)


def a_converting_job(build: Object, **source: str) -> Object:
    version = {"uri": "pvc://sources/1.onnx", "sha256": sha("1"), "build": build}
    found = model(a_model("detector").with_version(1, **version))
    body = an_engine(engine_of(found, 1))
    body["spec"] |= {"build": build, "minimumCosine": "0.97"}
    body["spec"]["source"] |= source
    allowed = {"allowedHosts": ["store.example"], "allowedSecrets": ["models-read", "data-read"]}
    on = repository(a_repository("models").with_spec(prepare=SETTINGS, **allowed))
    return jobs.prepare(engine=Engine.parse(body), attempt=1, repository=on, images=IMAGES)


def a_convert_job() -> Object:
    found = model(
        a_model("detector").with_version(1, "pvc://s/1.onnx", sha256=sha("1")).with_spec(backend="OpenVINO")
    )
    needed = engine_of(found, 1)
    body = an_engine(needed)
    spec = {"key": needed.key, "backend": "OpenVINO", "repository": "models", "from": needed.prepared.name}
    on = repository(a_repository("models").with_spec(prepare=SETTINGS))
    return jobs.convert(engine=Engine.parse(body | {"spec": spec}), attempt=1, repository=on, images=IMAGES)


def a_resolve_job() -> Object:
    found = repository(a_repository("models").with_spec(prepare=SETTINGS))
    version = MODEL.spec.versions[0]
    return jobs.resolve(model=MODEL, version=version, attempt=1, repository=found, images=IMAGES)


def a_reference_job(**samples: Any) -> Object:
    named = {"uri": "pvc://tests/a$$b.npz", **samples}
    checked = a_model("detector").with_version(1, "pvc://s/1.onnx").with_spec(check={"samples": named})
    found = model(checked, generation=4)
    wanted = entry(found, "onnxruntime-1")
    assert wanted is not None
    return jobs.reference(
        model=found,
        engine="onnxruntime-1",
        entry=wanted,
        attempt=2,
        repository=repository(a_repository("models").with_spec(prepare=SETTINGS)),
        images=IMAGES,
    )


def a_keeper(**spec: Any) -> Object:
    found = repository(a_repository("models").with_spec(keeper=SETTINGS, **spec))
    return keeper_workload.deployment(
        found, secret="keeper-models-key-1", cluster_uid="cluster", claim_uid="claim", images=IMAGES
    )


def a_triton(replicas: int = 2, **spec: Any) -> Object:
    found = server(a_server("a10").with_spec(**SETTINGS, imagePullSecrets=[{"name": "login"}], **spec))
    return triton_workload.deployment(
        found, release="24.10", claim="models", secret="triton-a10-key-1", replicas=replicas
    )


WORKLOADS = {
    "prepare": a_prepare_job(**SETTINGS),
    "calibrated": a_converting_job(
        {"precision": "INT8", "calibration": {"uri": "pvc://tests/a$$b.npz", "sha256": sha("c")}}
    ),
    "remote": a_remote_job(),
    "convert": a_convert_job(),
    "resolve": a_resolve_job(),
    "samples": a_reference_job(),
    "keeper": a_keeper(),
    "triton": a_triton(),
}


def pod_of(workload: Object) -> Object:
    found: Object = workload["spec"]["template"]["spec"]
    return found


def container_of(workload: Object) -> Object:
    (found,) = pod_of(workload)["containers"]
    return dict(found)


@pytest.fixture(params=WORKLOADS)
def workload(request: pytest.FixtureRequest) -> Object:
    return WORKLOADS[request.param]


def test_every_pod_is_admitted_under_pod_security_restricted(workload: Object) -> None:
    pod, container = pod_of(workload), container_of(workload)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert all("hostPath" not in volume for volume in pod["volumes"])


def test_every_mount_has_its_volume_and_no_volume_is_left_over(workload: Object) -> None:
    mounted = {mount["name"] for mount in container_of(workload)["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod_of(workload)["volumes"]}


def test_placement_and_pull_secrets_reach_every_pod(workload: Object) -> None:
    pod = pod_of(workload)
    assert pod["nodeSelector"] == {"disk": "ssd"}
    assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    assert pod["imagePullSecrets"] == [{"name": "login"}]
    assert container_of(workload)["resources"]["limits"] == {"cpu": "2", "memory": "4Gi"}


def test_every_child_is_ours_and_goes_with_its_owner(workload: Object) -> None:
    metadata = workload["metadata"]
    assert metadata["namespace"] == "vision"
    assert metadata["labels"][names.MANAGED_BY] == names.MANAGER
    (owner,) = metadata["ownerReferences"]
    assert owner["controller"] is True
    assert owner["uid"].endswith("-uid")
    template = workload["spec"]["template"]["metadata"]["labels"]
    assert template[names.MANAGED_BY] == names.MANAGER


def test_pods_carry_what_their_deployment_selects() -> None:
    for name in ("keeper", "triton"):
        workload = WORKLOADS[name]
        selector = workload["spec"]["selector"]["matchLabels"].items()
        assert selector <= workload["spec"]["template"]["metadata"]["labels"].items()


def test_only_keeper_and_jobs_that_store_may_write_to_the_volume() -> None:
    def writes(workload: Object, name: str) -> bool:
        mount = next(m for m in container_of(workload)["volumeMounts"] if m["name"] == name)
        return not mount.get("readOnly", False)

    assert writes(WORKLOADS["keeper"], "repository")
    assert writes(WORKLOADS["prepare"], "repository")
    assert writes(WORKLOADS["convert"], "repository")
    assert writes(WORKLOADS["samples"], "repository")
    assert not writes(WORKLOADS["triton"], "repository")
    for job in ("prepare", "resolve", "samples", "calibrated"):
        assert not writes(WORKLOADS[job], "source")
    assert not writes(WORKLOADS["calibrated"], "calibration")


# -- Jobs ------------------------------------------------------------------------------------------


def test_a_job_is_one_attempt_and_never_retries_by_itself() -> None:
    job = a_prepare_job(3, timeoutSeconds=60)
    assert job["metadata"]["name"] == f"{engine_of(MODEL, 1).name}-3"
    assert job["metadata"]["labels"][names.ATTEMPT] == "3"
    assert job["spec"]["backoffLimit"] == 0
    assert job["spec"]["podReplacementPolicy"] == "Failed"
    assert job["spec"]["activeDeadlineSeconds"] == 60
    assert pod_of(job)["restartPolicy"] == "Never"
    assert a_resolve_job()["metadata"]["labels"][names.GENERATION] == "4"


def test_attempts_differ_in_name_and_label_alone() -> None:
    first, second = a_prepare_job(1), a_prepare_job(2)
    assert first["spec"] == second["spec"]
    assert first["metadata"]["name"] != second["metadata"]["name"]


def test_kubernetes_replaces_nothing_in_a_source() -> None:
    for name, source in (
        ("prepare", "pvc://sources/a$$b.onnx"),
        ("resolve", "pvc://sources/a$$b.onnx"),
        ("samples", "pvc://tests/a$$b.npz"),
    ):
        arguments = container_of(WORKLOADS[name])["args"]
        assert f"--source={source.replace('$', '$$')}" in arguments  # "$$" means "$" there
        assert "--source-root=/source" in arguments


def test_a_convert_job_reads_and_writes_the_repository_alone() -> None:
    job = a_convert_job()
    arguments = container_of(job)["args"]
    assert arguments[0] == "convert"
    assert any(a.startswith("--from=onnxruntime-") for a in arguments)
    assert {volume["name"] for volume in pod_of(job)["volumes"]} == {"repository", "tmp"}
    assert job["metadata"]["labels"][names.COMPONENT] == jobs.CONVERT
    assert "affinity" not in pod_of(job)


def test_numbers_that_stay_need_no_arguments() -> None:
    arguments = container_of(WORKLOADS["prepare"])["args"]
    assert not [a for a in arguments if "precision" in a or "cosine" in a or "calibration" in a]


@pytest.mark.parametrize(
    ("build", "arguments"),
    [
        ({"precision": "FP16"}, ["--precision=FP16", "--minimum-cosine=0.97"]),
        (
            {"precision": "FP16", "keepIO": False},
            ["--precision=FP16", "--no-keep-io", "--minimum-cosine=0.97"],
        ),
        (
            {"precision": "INT8", "calibration": {"generated": True}},
            ["--precision=INT8", "--minimum-cosine=0.97", "--calibration-generated"],
        ),
        (
            {"precision": "INT8", "calibration": {"uri": "pvc://tests/a$$b.npz", "sha256": sha("c")}},
            [
                "--precision=INT8",
                "--minimum-cosine=0.97",
                "--calibration=pvc://tests/a$$$$b.npz",
                "--calibration-root=/calibration",
                f"--calibration-sha256={sha('c')}",
            ],
        ),
    ],
)
def test_a_job_is_told_what_to_do_to_the_numbers(build: Object, arguments: list[str]) -> None:
    found = container_of(a_converting_job(build))["args"]
    assert {a for a in found if a in arguments} == set(arguments)


def test_the_job_understands_every_argument_that_it_is_given() -> None:
    for name in ("prepare", "calibrated"):
        found = [a.replace("$(POD_UID)", "uid-1") for a in container_of(WORKLOADS[name])["args"]]
        arguments = builder_parser().parse_args(found)
        assert arguments.precision == ("INT8" if name == "calibrated" else "FP32")


def test_calibration_data_is_read_from_its_own_claim() -> None:
    volumes = {v["name"]: v for v in pod_of(WORKLOADS["calibrated"])["volumes"]}
    assert volumes["calibration"]["persistentVolumeClaim"] == {"claimName": "tests", "readOnly": True}
    generated = a_converting_job({"precision": "INT8", "calibration": {"generated": True}})
    assert "calibration" not in {v["name"] for v in pod_of(generated)["volumes"]}


def test_calibration_data_from_elsewhere_is_read_with_a_secret_of_its_own() -> None:
    calibration = {"uri": "s3://data/c.npz", "secretName": "data-read"}
    job = a_converting_job({"precision": "INT8", "calibration": calibration})
    volumes = {v["name"]: v for v in pod_of(job)["volumes"]}
    assert volumes["calibration-credentials"]["secret"]["secretName"] == "data-read"
    assert volumes["source"]["persistentVolumeClaim"]["claimName"] == "sources"
    arguments = container_of(job)["args"]
    assert {
        "--calibration=s3://data/c.npz",
        "--calibration-credentials=/calibration-credentials",
        "--allowed-host=store.example",
    } <= set(arguments)
    assert not [a for a in arguments if a.startswith("--credentials")]
    found = builder_parser().parse_args([a.replace("$(POD_UID)", "uid-1") for a in arguments])
    assert found.calibration_credentials == Path("/calibration-credentials")


def test_what_a_source_and_calibration_data_from_elsewhere_share_is_said_once() -> None:
    calibration = {"uri": "s3://data/c.npz", "secretName": "data-read"}
    build = {"precision": "INT8", "calibration": calibration}
    job = a_converting_job(build, uri="s3://models/1.onnx", secretName="models-read")
    arguments = container_of(job)["args"]
    assert arguments.count("--allowed-host=store.example") == 1
    secrets = [v["secret"]["secretName"] for v in pod_of(job)["volumes"] if "secret" in v]
    assert secrets == ["models-read", "data-read"]
    mounts = [m["mountPath"] for m in container_of(job)["volumeMounts"]]
    assert len(mounts) == len(set(mounts))


@pytest.mark.parametrize(
    ("calibration", "reason"),
    [
        ({"uri": "https://elsewhere.example/c.npz"}, "HostNotAllowed"),
        ({"uri": "s3://data/c.npz", "secretName": "unknown"}, "SecretNotAllowed"),
    ],
)
def test_calibration_data_pass_the_gate_that_sources_pass(calibration: Object, reason: str) -> None:
    with pytest.raises(OutcomeError) as caught:
        a_converting_job({"precision": "INT8", "calibration": calibration})
    assert caught.value.outcome.reason == reason


def test_staging_is_named_after_the_pod() -> None:
    container = container_of(WORKLOADS["prepare"])
    assert "--staging-uid=$(POD_UID)" in container["args"]
    assert container["env"][0]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.uid"


def test_a_source_that_no_job_reads_makes_no_job() -> None:
    with pytest.raises(OutcomeError, match="UnsupportedSource"):
        a_remote_job("ftp://host/model.onnx")


def test_a_source_from_elsewhere_gets_its_secret_as_files_and_no_claim() -> None:
    job = a_remote_job()
    container, volumes = container_of(job), {v["name"]: v for v in pod_of(job)["volumes"]}
    assert volumes["credentials"]["secret"]["secretName"] == "s3-read"
    mount = next(m for m in container["volumeMounts"] if m["name"] == "credentials")
    assert mount == {"name": "credentials", "mountPath": "/credentials", "readOnly": True}
    assert "source" not in volumes
    assert {"--credentials=/credentials", "--allowed-host=minio.storage.svc:9000"} <= set(container["args"])
    assert "--source=s3://models/a$$$$b.onnx" in container["args"]
    assert not any("secretKeyRef" in each.get("valueFrom", {}) for each in container["env"])


def test_a_source_without_a_secret_gets_none() -> None:
    job = a_remote_job(secret=None, allowedSecrets=[])
    assert not any("secret" in volume for volume in pod_of(job)["volumes"])
    assert not any("--credentials" in argument for argument in container_of(job)["args"])


@pytest.mark.parametrize(
    ("job", "reason", "remedy"),
    [
        ({"allowedSecrets": []}, "SecretNotAllowed", "add s3-read to its spec.allowedSecrets"),
        ({"secret": "other"}, "SecretNotAllowed", "add other to its spec.allowedSecrets"),
        ({"allowedHosts": []}, "HostNotAllowed", "add the hosts of s3:// to its spec.allowedHosts"),
        ({"uri": "https://models.example/1.onnx"}, "HostNotAllowed", "add models.example to its"),
        ({"uri": "https://10.0.0.7:8443/1.onnx"}, "HostNotAllowed", "add 10.0.0.7:8443 to its"),
        ({"uri": "oci://minio.storage.svc/det:1"}, "HostNotAllowed", "add minio.storage.svc to its"),
        ({"allowedHosts": ["a:99999"], "uri": "https://a/b"}, "HostNotAllowed", "'a:99999' is not a host"),
    ],
)
def test_what_the_repository_does_not_allow_makes_no_job(job: Any, reason: str, remedy: str) -> None:
    with pytest.raises(OutcomeError) as caught:
        a_remote_job(**job)
    assert caught.value.outcome.reason == reason
    assert remedy in caught.value.outcome.message


def test_a_signature_in_a_uri_is_not_told() -> None:
    with pytest.raises(OutcomeError) as caught:
        a_remote_job("https://models.example/1.onnx?sig=hush")
    assert "hush" not in caught.value.outcome.message


def test_a_source_may_be_as_large_as_the_repository_says() -> None:
    assert "--max-bytes=2147483648" in container_of(a_remote_job(maxSourceSize="2Gi"))["args"]
    assert "--max-bytes=68719476736" in container_of(a_prepare_job())["args"]


@given(st.text())
def test_a_literal_survives_the_expansion_of_kubernetes(text: str) -> None:
    # https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/
    escaped = podspec.literal(text)
    assert escaped.count("$") == 2 * text.count("$")
    assert escaped.replace("$$", "$") == text


# -- keeper ----------------------------------------------------------------------------------------


def test_there_are_never_two_keepers() -> None:
    spec = a_keeper()["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_the_keeper_knows_whose_volume_it_keeps() -> None:
    arguments = container_of(a_keeper())["args"]
    assert arguments[0] == "keeper"
    assert {"--cluster=cluster", "--namespace=vision", "--claim-uid=claim"} <= set(arguments)


def test_a_claim_that_we_make_outlives_its_repository() -> None:
    found = repository(a_repository("models").with_spec(storage={"size": "5Gi", "className": "nfs"}))
    claim = keeper_workload.claim(found)
    assert "ownerReferences" not in claim["metadata"]
    assert claim["metadata"]["name"] == "repository-models"
    assert claim["spec"] == {
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": "5Gi"}},
        "storageClassName": "nfs",
    }
    with pytest.raises(ValueError, match="no claim of ours"):
        keeper_workload.claim(repository(a_repository().on_claim("theirs")))


def test_a_key_reaches_pods_by_a_secret_that_nobody_changes() -> None:
    secret = keeper_workload.key_secret(MODEL, "x-key-1", names.labels("keeper"), "c0ffee")
    assert secret["immutable"] is True
    assert base64.b64decode(secret["data"][keeper_workload.KEY_FIELD]) == b"c0ffee"
    variable = container_of(a_keeper())["env"][0]
    assert variable["valueFrom"]["secretKeyRef"] == {"name": "keeper-models-key-1", "key": "key"}


# -- Triton ----------------------------------------------------------------------------------------

A10 = TargetStatus(
    product="NVIDIA-A10", compute_capability="8.6", memory_mib=23028, resource="nvidia.com/gpu"
)


def a_gpu_triton(hardware: TargetStatus = A10, **spec: Any) -> Object:
    found = server(a_server("a10").with_spec(**({"gpu": {}} | spec)))
    return triton_workload.deployment(
        found, release="24.10", claim="models", secret="key", replicas=2, hardware=hardware
    )


def matches(deployment: Object, labels: dict[str, str]) -> bool:
    """Tell whether the affinity of pods admits a node, as the scheduler reads it: terms are alternatives."""
    required = pod_of(deployment)["affinity"]["nodeAffinity"][
        "requiredDuringSchedulingIgnoredDuringExecution"
    ]
    for term in required["nodeSelectorTerms"]:
        (expression,) = term["matchExpressions"]
        present = labels.get(expression["key"])
        if expression["operator"] == "In" and present in expression["values"]:
            return True
        if expression["operator"] == "DoesNotExist" and present is None:
            return True
    return False


def test_pods_of_a_server_without_gpus_know_nothing_of_them() -> None:
    found = server(a_server("a10"))
    plain = triton_workload.deployment(found, release="24.10", claim="c", secret="s", replicas=1)
    placed = triton_workload.deployment(
        found, release="24.10", claim="c", secret="s", replicas=1, hardware=target.cpu()
    )
    assert plain == placed
    assert "affinity" not in pod_of(plain)
    assert "annotations" not in plain["metadata"]
    assert "resources" not in container_of(plain)


def test_a_pod_gets_its_gpus_by_the_resource_that_the_spec_names() -> None:
    assert container_of(a_gpu_triton())["resources"] == {"limits": {"nvidia.com/gpu": "1"}}
    resources = {"limits": {"cpu": 4, "memory": "8Gi"}, "requests": {"cpu": 1}}
    found = a_gpu_triton(gpu={"resource": "nvidia.com/mig-1g.10gb", "count": 2}, resources=resources)
    assert container_of(found)["resources"] == {
        "limits": {"cpu": "4", "memory": "8Gi", "nvidia.com/mig-1g.10gb": "2"},
        "requests": {"cpu": "1"},
    }


def test_pods_run_on_their_product_alone_shared_or_not() -> None:
    found = a_gpu_triton(nodeSelector={"pool": "vision"}, tolerations=[{"key": "nvidia.com/gpu"}])
    label = "nvidia.com/gpu.product"
    assert matches(found, {label: "NVIDIA-A10"})
    assert matches(found, {label: "NVIDIA-A10-SHARED"})
    assert not matches(found, {label: "NVIDIA-L4"})
    assert not matches(found, {})
    assert pod_of(found)["nodeSelector"] == {"pool": "vision"}
    assert pod_of(found)["tolerations"] == [{"key": "nvidia.com/gpu"}]


def test_pods_whose_spec_says_everything_also_run_where_there_are_no_labels() -> None:
    found = a_gpu_triton(gpu={"product": "NVIDIA-A10", "computeCapability": "8.6", "memoryMiB": 23028})
    label = "nvidia.com/gpu.product"
    assert matches(found, {})
    assert matches(found, {label: "NVIDIA-A10"})
    assert not matches(found, {label: "NVIDIA-L4"})


def test_pods_on_a_mig_profile_go_by_the_label_of_that_profile() -> None:
    product = "NVIDIA-A100-SXM4-80GB-MIG-1g.10gb"
    profile = A10.model_copy(update={"product": product})
    found = a_gpu_triton(profile, gpu={"resource": "nvidia.com/mig-1g.10gb"})
    labels = {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB", "nvidia.com/mig-1g.10gb.product": product}
    assert matches(found, labels)
    assert not matches(found, {"nvidia.com/gpu.product": product})


def test_a_deployment_remembers_the_hardware_that_it_was_made_for() -> None:
    found = a_gpu_triton()
    assert triton_workload.remembered_target(found) == A10
    assert names.TARGET not in found["spec"]["template"]["metadata"].get("annotations", {})
    for nothing in (None, a_triton(), {"metadata": {"annotations": {names.TARGET: "{}"}}}):
        assert triton_workload.remembered_target(nothing) is None


def test_engines_are_compiled_in_nvidias_image_of_the_release_unless_the_spec_says_otherwise() -> None:
    image = "nvcr.io/nvidia/tritonserver:26.07-py3"
    assert server(a_server().with_spec(image=image)).compiler_image == "nvcr.io/nvidia/tensorrt:26.07-py3"
    unknown = a_server().with_spec(image="mirror/triton:latest")
    assert server(unknown).compiler_image is None
    assert server(unknown.with_spec(release="26.07")).compiler_image == "nvcr.io/nvidia/tensorrt:26.07-py3"
    assert server(unknown.with_spec(compilerImage="mirror/tensorrt@sha256:0a")).compiler_image == (
        "mirror/tensorrt@sha256:0a"
    )


def test_triton_reads_the_tree_of_its_server_and_release() -> None:
    arguments = container_of(a_triton())["args"]
    assert "--model-repository=/repository/servers/a10/24.10" in arguments
    assert {"--model-control-mode=explicit", "--load-model=*", "--exit-on-error=false"} <= set(arguments)


def test_only_the_operator_may_load_and_unload() -> None:
    container = container_of(a_triton())
    restricted = [a for a in container["args"] if "restricted" in a]
    assert [a.split("=")[0] for a in restricted] == ["--grpc-restricted-protocol", "--http-restricted-api"]
    for argument in restricted:
        assert argument.endswith("=model-repository,model-config:triton-operator-key=$(TRITON_CONTROL_KEY)")
    assert container["env"][0]["name"] == "TRITON_CONTROL_KEY"
    assert "value" not in container["env"][0]


def test_arguments_and_environment_of_the_user_come_last_and_literally() -> None:
    spec = {"args": ["--log-verbose=1"], "env": [{"name": "A", "value": "$(TRITON_CONTROL_KEY)"}]}
    container = container_of(a_triton(**spec))
    assert container["args"][-1] == "--log-verbose=1"
    assert container["env"][-1] == {"name": "A", "value": "$$(TRITON_CONTROL_KEY)"}


def test_a_model_that_fails_does_not_take_the_pod_out_of_service() -> None:
    container = container_of(a_triton())
    assert "--strict-readiness=false" in container["args"]
    assert container["readinessProbe"]["httpGet"] == {"path": "/v2/health/ready", "port": "http"}
    assert container["startupProbe"]["failureThreshold"] >= 3600


def test_the_selector_of_the_scale_subresource_finds_the_pods() -> None:
    found = server(a_server("a10"))
    pairs = dict(pair.split("=") for pair in triton_workload.selector(found).split(","))
    assert pairs == triton_workload.pod_labels(found)


def test_a_release_is_on_the_pods_but_not_in_the_selector() -> None:
    deployment = a_triton()
    assert deployment["spec"]["template"]["metadata"]["labels"][names.RELEASE] == "24.10"
    assert names.RELEASE not in deployment["spec"]["selector"]["matchLabels"]


def test_a_pod_starts_in_the_services_and_can_be_left_out() -> None:
    deployment = a_triton()
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    for service in triton_workload.services(server(a_server("a10"))):
        assert service["spec"]["selector"].items() <= labels.items()
    # what finds the pods must find those that are left out too
    budget = triton_workload.disruption_budget(server(a_server("a10")))
    for selector in (deployment["spec"]["selector"], budget["spec"]["selector"]):
        assert names.SERVING not in selector["matchLabels"]
        assert selector["matchLabels"].items() <= labels.items()
    assert names.SERVING not in triton_workload.selector(server(a_server("a10")))


def test_triton_says_whose_pod_it_is() -> None:
    container = container_of(a_triton())
    variable = next(each for each in container["env"] if each["name"] == "POD_NAME")
    assert variable["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"
    assert "--id=$(POD_NAME)" in container["args"]


def test_every_variable_that_arguments_name_is_set_and_the_operators() -> None:
    container = container_of(a_triton(env=[{"name": "A"}]))
    named = set(re.findall(r"\$\((\w+)\)", " ".join(container["args"])))
    assert named == {each["name"] for each in container["env"]} - {"A"}


def test_every_flag_that_the_operator_sets_is_its_own() -> None:
    flags = {argument.split("=")[0] for argument in container_of(a_triton())["args"]}
    assert flags <= set(OWNED_FLAGS)


def test_a_pod_that_ends_answers_on_while_clients_leave() -> None:
    deployment = a_triton(shutdown={"leaveSeconds": 30, "exitTimeoutSeconds": 60})
    container = container_of(deployment)
    assert container["lifecycle"] == {"preStop": {"sleep": {"seconds": 30}}}
    assert "--exit-timeout-secs=60" in container["args"]
    assert "--grpc-max-connection-age=20000" in container["args"]
    assert pod_of(deployment)["terminationGracePeriodSeconds"] == 95


@given(st.integers(1, 600))
def test_grpc_connections_move_before_their_pod_goes(leave_seconds: int) -> None:
    arguments = container_of(a_triton(shutdown={"leaveSeconds": leave_seconds}))["args"]
    (age,) = [int(a.split("=")[1]) for a in arguments if a.startswith("--grpc-max-connection-age=")]
    assert 0 < age * 1.1 < leave_seconds * 1000  # gRPC adds up to a tenth


def test_a_pod_that_may_go_at_once_neither_waits_nor_sends_clients_away() -> None:
    deployment = a_triton(shutdown={"leaveSeconds": 0, "exitTimeoutSeconds": 1})
    container = container_of(deployment)
    assert "lifecycle" not in container
    assert not any("connection-age" in argument for argument in container["args"])
    assert pod_of(deployment)["terminationGracePeriodSeconds"] == 6


def test_pods_are_replaced_as_the_spec_says() -> None:
    assert a_triton()["spec"]["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
    }
    no_room = a_triton(update={"maxSurge": 0, "maxUnavailable": "25%"})
    assert no_room["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": "25%"}


def test_drains_take_so_many_pods_at_once_and_any_that_is_not_ready() -> None:
    found = server(a_server("a10").with_disruption("20%"))
    budget = triton_workload.disruption_budget(found)
    assert (budget["apiVersion"], budget["kind"]) == ("policy/v1", "PodDisruptionBudget")
    assert budget["metadata"]["name"] == "triton-a10"
    assert budget["metadata"]["labels"][names.MANAGED_BY] == names.MANAGER
    assert budget["metadata"]["ownerReferences"][0]["uid"] == found.metadata.uid
    assert budget["spec"] == {
        "maxUnavailable": "20%",
        "selector": {"matchLabels": triton_workload.pod_labels(found)},
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }


def test_pods_spread_over_nodes_but_never_wait_for_one() -> None:
    (spread,) = pod_of(a_triton())["topologySpreadConstraints"]
    assert (spread["topologyKey"], spread["whenUnsatisfiable"]) == (
        "kubernetes.io/hostname",
        "ScheduleAnyway",
    )
    assert spread["labelSelector"] == {"matchLabels": triton_workload.pod_labels(server(a_server("a10")))}


def test_two_services_lead_to_the_pods() -> None:
    found = server(a_server("a10").with_spec(service={"name": "vision", "type": "NodePort"}))
    front, headless = triton_workload.services(found)
    assert (front["metadata"]["name"], front["spec"]["type"]) == ("vision", "NodePort")
    assert (headless["metadata"]["name"], headless["spec"]["clusterIP"]) == ("vision-pods", "None")
    for service in (front, headless):
        assert service["spec"]["selector"] == triton_workload.pod_labels(found) | {names.SERVING: "true"}
        assert [port["port"] for port in service["spec"]["ports"]] == [8000, 8001, 8002]


def test_shared_memory_has_the_size_of_the_spec() -> None:
    volume = next(v for v in pod_of(a_triton(shmSize="1Gi"))["volumes"] if v["name"] == "shm")
    assert volume["emptyDir"] == {"sizeLimit": "1Gi", "medium": "Memory"}
    policy = container_of(a_triton(imagePullPolicy="Never"))["imagePullPolicy"]
    assert policy == "Never"
    assert "imagePullPolicy" not in container_of(a_triton())


def test_the_name_of_an_image_tells_its_release_or_nothing() -> None:
    releases = {
        "nvcr.io/nvidia/tritonserver:26.07-py3": "26.07",
        "mirror:5000/triton:24.10-py3@sha256:0abc": "24.10",
        "mirror/triton:latest": None,
        "mirror/triton@sha256:0abc": None,
    }
    for image, release in releases.items():
        assert server(a_server().with_spec(image=image)).release == release
    assert server(a_server().with_spec(image="mirror/triton:latest", release="26.07")).release == "26.07"
