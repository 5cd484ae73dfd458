"""The release as a whole: names, namespaces, labels, and what it leaves behind."""

from __future__ import annotations

import pytest
from tests.chart.helm import CHART, CLUSTER_SCOPED, FULL_VALUES, ROOT, Rendered, Values, refusal, render, run

from triton_operator.plan import names

LONGEST_RELEASE = "r" * 53
LONGEST_NAMESPACE = "n" * 63


@pytest.mark.parametrize("options", [(), ("--values", str(FULL_VALUES))], ids=["default", "full"])
def test_lint(options: tuple[str, ...]) -> None:
    done = run("lint", "--strict", *options, str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr


def test_older_kubernetes_is_refused() -> None:
    assert "1.31" in refusal({}, kubernetes="1.30.9")


@pytest.mark.parametrize("values", [None, {"watchNamespaces": ["vision"]}])
def test_names_fit_with_the_longest_release_and_namespace(values: Values) -> None:
    rendered = render(values, release=LONGEST_RELEASE, namespace=LONGEST_NAMESPACE)
    _check_names(rendered)


def test_names_fit_with_a_name_of_ones_own() -> None:
    rendered = render({"fullnameOverride": "f" * 63, "nameOverride": "n" * 63})
    _check_names(rendered)


def test_release_with_a_dot_gives_a_service_a_valid_name() -> None:
    service = render(release="gpu.v1").one("Service")
    assert service["metadata"]["name"] == "gpu-v1-triton-operator-metrics"


def test_names_that_yaml_takes_for_something_else() -> None:
    values = {
        "fullnameOverride": "null",
        "nameOverride": "on",
        "watchNamespaces": ["1e3", "123"],
        "serviceAccount": {"name": "true"},
        "modelRepositories": [{"name": "no", "namespace": "123", "spec": {}}],
        "tritonServers": [{"name": "0x1", "namespace": "1e3", "spec": {}}],
    }
    rendered = render(values, release="y", namespace="123")
    for found in rendered.objects:
        metadata = found["metadata"]
        strings = [metadata["name"], metadata.get("namespace", ""), *metadata["labels"].values()]
        assert all(isinstance(value, str) for value in strings), found
    assert rendered.pod["spec"]["serviceAccountName"] == "true"
    environment = {entry["name"]: entry.get("value") for entry in rendered.container["env"]}
    assert environment["TRITON_OPERATOR_DEPLOYMENT"] == "null"
    subjects = [
        s for kind in ("RoleBinding", "ClusterRoleBinding") for b in rendered.all(kind) for s in b["subjects"]
    ]
    assert {(subject["name"], subject["namespace"]) for subject in subjects} == {("true", "123")}


def test_name_is_not_said_twice() -> None:
    assert render(release="my-triton-operator").one("Deployment")["metadata"]["name"] == "my-triton-operator"
    assert render(release="mine").one("Deployment")["metadata"]["name"] == "mine-triton-operator"


def test_releases_in_two_namespaces_share_no_object_of_the_cluster() -> None:
    first, second = (render(namespace=name) for name in ("a" * 62 + "1", "a" * 62 + "2"))
    for kind in ("ClusterRole", "ClusterRoleBinding"):
        assert first.one(kind)["metadata"]["name"] != second.one(kind)["metadata"]["name"]


@pytest.mark.parametrize("values", [None, {"watchNamespaces": ["vision"]}, FULL_VALUES])
def test_every_object_says_where_it_belongs(values: Values) -> None:
    rendered = render(values)
    for found in rendered.objects:
        assert ("namespace" in found["metadata"]) == (found["kind"] not in CLUSTER_SCOPED), found["kind"]
        labels = found["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == "triton-operator"
        assert labels[names.MANAGED_BY] == "Helm", "the operator would take it for one of its own"
    places = [_place(found) for found in rendered.objects]
    assert len(places) == len(set(places))


def test_uninstall_keeps_nothing() -> None:
    for found in render(FULL_VALUES).objects:
        annotations = found["metadata"].get("annotations") or {}
        assert not [key for key in annotations if key.startswith("helm.sh/")], (
            "hooks and policies stay behind"
        )


def test_crds_come_with_the_chart_and_are_not_part_of_the_release() -> None:
    wanted = {file.name: file.read_text() for file in (ROOT / "crds").glob("*.yaml")}
    assert {file.name: file.read_text() for file in (CHART / "crds").iterdir()} == wanted
    assert len(wanted) == 4
    assert not render().all("CustomResourceDefinition"), "uninstalling would delete every object of them"


def _check_names(rendered: Rendered) -> None:
    for found in rendered.objects:
        metadata = found["metadata"]
        assert len(metadata["name"]) <= 63
        assert not metadata["name"].endswith("-")
        assert all(len(value) <= 63 for value in metadata["labels"].values())


def _place(found: dict[str, dict[str, str]]) -> tuple[object, ...]:
    metadata = found["metadata"]
    return found["kind"], metadata.get("namespace"), metadata["name"]
