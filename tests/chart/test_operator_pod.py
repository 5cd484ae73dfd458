"""The operator's Deployment: secure, and the settings arrive as they were given."""

from __future__ import annotations

import pytest
from tests.chart.helm import FULL_VALUES, Object, Rendered, Values, refusal, render

from triton_operator.settings import Settings

DIGEST = "0123456789abcdef" * 4
BUILDER_DIGEST = "fedcba9876543210" * 4
PLACES = {"metadata.namespace": "operators", "metadata.name": "pod-1", "spec.nodeName": "node"}


@pytest.fixture(scope="module")
def default() -> Rendered:
    return render()


@pytest.fixture(scope="module")
def full() -> Rendered:
    return render(FULL_VALUES)


@pytest.mark.parametrize("values", [None, FULL_VALUES])
def test_pod_security_restricted(values: Values) -> None:
    rendered = render(values)
    specs = [found["spec"]["template"]["spec"] for found in rendered.objects if _has_pods(found)]
    assert specs
    for spec in specs:
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert all(set(volume) <= {"name", "emptyDir"} for volume in spec["volumes"])
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert not [port for port in container["ports"] if "hostPort" in port]


def test_one_pod_that_the_release_waits_for(default: Rendered) -> None:
    spec = default.one("Deployment")["spec"]
    assert spec["replicas"] == 1
    assert spec["strategy"] == {"type": "Recreate"}
    assert default.container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    assert default.container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}


def test_only_the_operator_gets_a_token(default: Rendered) -> None:
    assert default.one("ServiceAccount")["automountServiceAccountToken"] is False
    assert default.pod["spec"]["automountServiceAccountToken"] is True


def test_defaults_are_those_of_the_operator(default: Rendered) -> None:
    assert _settings(default) == Settings(
        namespace="operators",
        identity="pod-1",
        engine_builder_image="localhost/triton-operator/engine-builder:0.1.0",
        deployment="triton-operator",
    )


def test_values_become_settings(full: Rendered) -> None:
    assert _settings(full) == Settings(
        namespace="operators",
        identity="pod-1",
        engine_builder_image=f"registry.example/triton/engine-builder:0.1.0-rc2@sha256:{BUILDER_DIGEST}",
        image_pull_policy="Never",
        image_pull_secrets=("registry", "mirror"),
        watch_namespaces=("vision", "speech"),
        cluster_uid="production",
        deployment="inference",
        workers=3,
        resync_seconds=60,
        fleet_seconds=12.5,
        retry_seconds=2,
        log_level="DEBUG",
        log_format="text",
    )


def test_no_setting_is_left_out(full: Rendered) -> None:
    given = {entry["name"].removeprefix("TRITON_OPERATOR_").lower() for entry in _entries(full)}
    assert given == set(Settings.__dataclass_fields__) - {"kubeconfig"}


def test_pod_carries_what_the_values_say(full: Rendered) -> None:
    spec, container = full.pod["spec"], full.container
    assert container["image"] == f"registry.example/triton/operator:0.1.0-rc1@sha256:{DIGEST}"
    assert container["imagePullPolicy"] == "Always"
    assert container["resources"]["limits"] == {"memory": "1Gi"}
    assert [entry["name"] for entry in container["env"][-2:]] == ["HTTPS_PROXY", "NODE"]
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    assert spec["nodeSelector"] == {"kubernetes.io/arch": "amd64"}
    assert spec["tolerations"][0]["key"] == "dedicated"
    assert "nodeAffinity" in spec["affinity"]
    assert spec["priorityClassName"] == "system-cluster-critical"
    assert spec["serviceAccountName"] == "operator-account"
    assert full.pod["metadata"]["annotations"] == {"example.com/team": "platform"}
    assert full.pod["metadata"]["labels"]["example.com/tier"] == "control"
    assert not full.all("ServiceAccount")


def test_pod_labels_replace_none_of_the_charts() -> None:
    labels = {"app.kubernetes.io/managed-by": "triton-operator", "app.kubernetes.io/name": "other"}
    rendered = render({"podLabels": labels})
    selector = rendered.one("Deployment")["spec"]["selector"]["matchLabels"]
    assert selector.items() <= rendered.pod["metadata"]["labels"].items()
    assert rendered.pod["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "Helm"


def test_settings_are_not_set_behind_the_values_back() -> None:
    message = refusal({"extraEnv": [{"name": "TRITON_OPERATOR_WORKERS", "value": "1"}]})
    assert "TRITON_OPERATOR_WORKERS is the chart's to set" in message


def test_metrics_are_served_where_the_service_points(full: Rendered) -> None:
    settings, service = _settings(full), full.one("Service")
    assert full.container["ports"] == [{"name": "http", "containerPort": int(settings.listen[1:])}]
    assert service["spec"]["ports"] == [{"name": "http", "port": 8080, "targetPort": "http"}]
    assert service["spec"]["selector"].items() <= full.pod["metadata"]["labels"].items()
    assert service["metadata"]["annotations"] == {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": "8080",
        "prometheus.io/path": "/metrics",
        "example.com/scrape": "often",
    }


def test_pod_monitor_selects_the_pod(full: Rendered, default: Rendered) -> None:
    monitor = full.one("PodMonitor")
    selector = monitor["spec"]["selector"]["matchLabels"]
    assert selector.items() <= full.pod["metadata"]["labels"].items()
    assert monitor["spec"]["podMetricsEndpoints"] == [{"port": "http", "path": "/metrics", "interval": "15s"}]
    assert monitor["metadata"]["labels"]["prometheus"] == "main"
    assert not default.all("PodMonitor")


def test_metrics_service_can_be_left_out() -> None:
    assert not render({"metrics": {"service": {"enabled": False}}}).all("Service")


def _entries(rendered: Rendered) -> list[Object]:
    return [e for e in rendered.container["env"] if e["name"].startswith("TRITON_OPERATOR_")]


def _settings(rendered: Rendered) -> Settings:
    """Return what the operator reads from the environment that its pod would have."""
    environment = {
        entry["name"]: entry.get("value") or PLACES[entry["valueFrom"]["fieldRef"]["fieldPath"]]
        for entry in rendered.container["env"]
    }
    assert all(isinstance(value, str) for value in environment.values())
    return Settings.from_environment(environment)


def _has_pods(found: Object) -> bool:
    return "template" in found.get("spec", {})
