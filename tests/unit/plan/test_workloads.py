"""Deployments, Services and Jobs as they reach the API server: security, placement, volumes, arguments."""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import a_model, a_repository, a_server
from tests.observed import an_engine, engine_of, model, repository, server, sha

from triton_operator.plan import jobs, keeper_workload, names, podspec, triton_workload
from triton_operator.plan.outcome import OutcomeError
from triton_operator.plan.podspec import Images
from triton_operator.plan.samples import entry
from triton_operator.resources.engine import Engine
from triton_operator.resources.model_repository import PrepareSettings
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
    found = PrepareSettings.model_validate(settings)
    return jobs.prepare(engine=engine, attempt=attempt, claim="models", settings=found, images=IMAGES)


def a_resolve_job() -> Object:
    settings = PrepareSettings.model_validate(SETTINGS)
    version = MODEL.spec.versions[0]
    return jobs.resolve(model=MODEL, version=version, attempt=1, settings=settings, images=IMAGES)


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
    assert writes(WORKLOADS["samples"], "repository")
    assert not writes(WORKLOADS["triton"], "repository")
    for job in ("prepare", "resolve", "samples"):
        assert not writes(WORKLOADS[job], "source")


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


def test_staging_is_named_after_the_pod() -> None:
    container = container_of(WORKLOADS["prepare"])
    assert "--staging-uid=$(POD_UID)" in container["args"]
    assert container["env"][0]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.uid"


def test_a_source_that_no_job_reads_makes_no_job() -> None:
    engine = Engine.parse(an_engine(engine_of(MODEL, 1)))
    source = engine.spec.source.model_copy(update={"uri": "s3://bucket/model.onnx"})
    moved = engine.model_copy(update={"spec": engine.spec.model_copy(update={"source": source})})
    with pytest.raises(OutcomeError, match="UnsupportedSource"):
        jobs.prepare(engine=moved, attempt=1, claim="models", settings=PrepareSettings(), images=IMAGES)


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
