"""What the operator may do: exactly the table in `rights`."""

from __future__ import annotations

import re

import pytest
from tests.chart.helm import CHART, FULL_VALUES, Rendered, Values, render
from tests.chart.rights import (
    CLUSTER_RIGHTS,
    NODE_RIGHTS,
    ONLY_IN_RACES,
    Right,
    granted,
    operator_rights,
    own_rights,
)

from triton_operator.clients import objects
from triton_operator.controllers.keys import MASTER_SECRET
from triton_operator.settings import Settings


@pytest.fixture(scope="module")
def default() -> Rendered:
    return render()


@pytest.fixture(scope="module")
def watching() -> Rendered:
    return render({"watchNamespaces": ["vision", "speech"]})


def test_everywhere_by_default(default: Rendered) -> None:
    expected = operator_rights() | CLUSTER_RIGHTS | NODE_RIGHTS
    assert granted(default.one("ClusterRole")["rules"]) == expected
    assert granted(default.one("Role")["rules"]) == own_rights("triton-operator")


def test_watched_namespaces_have_roles_and_the_cluster_none(watching: Rendered) -> None:
    assert granted(watching.one("ClusterRole")["rules"]) == CLUSTER_RIGHTS
    by_namespace = {role["metadata"]["namespace"]: granted(role["rules"]) for role in watching.all("Role")}
    assert by_namespace == {
        "operators": own_rights("triton-operator"),
        "vision": operator_rights(),
        "speech": operator_rights(),
    }


def test_own_namespace_may_be_watched_too() -> None:
    roles = render({"watchNamespaces": ["operators"]}).all("Role")
    assert [role["metadata"]["namespace"] for role in roles] == ["operators", "operators"]
    assert len({role["metadata"]["name"] for role in roles}) == 2


def test_known_cluster_uid_leaves_no_right_on_the_cluster() -> None:
    values = {"watchNamespaces": ["vision"], "settings": {"clusterUID": "production"}}
    rendered = render(values)
    assert not rendered.all("ClusterRole")
    assert not rendered.all("ClusterRoleBinding")


def test_rights_granted_by_somebody_else() -> None:
    rendered = render({"rbac": {"create": False}, "watchNamespaces": ["vision"]})
    kinds = {found["kind"] for found in rendered.objects}
    assert not kinds & {"ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}


@pytest.mark.parametrize("values", [None, {"watchNamespaces": ["vision"]}])
def test_no_wildcard_and_no_read_of_secrets(values: Values) -> None:
    rendered = render(values)
    rules = [
        rule for kind in ("ClusterRole", "Role") for role in rendered.all(kind) for rule in role["rules"]
    ]
    assert all(set(rule) <= {"apiGroups", "resources", "resourceNames", "verbs"} for rule in rules)
    rights = granted(rules)
    assert not [right for right in rights if any("*" in part for part in right)]
    assert {(r.verb, r.name) for r in rights if r.resource == "secrets"} == {
        ("create", ""),
        ("get", "triton-operator-master-key"),
    }


@pytest.mark.parametrize("values", [None, {"watchNamespaces": ["vision", "speech"]}, FULL_VALUES])
def test_every_role_is_bound_to_the_operator_and_to_nobody_else(values: Values) -> None:
    rendered = render(values)
    account = rendered.pod["spec"]["serviceAccountName"]
    roles = {_place(role) for kind in ("ClusterRole", "Role") for role in rendered.all(kind)}
    bound = set()
    for kind in ("ClusterRoleBinding", "RoleBinding"):
        for binding in rendered.all(kind):
            subject = {"kind": "ServiceAccount", "name": account, "namespace": "operators"}
            assert binding["subjects"] == [subject]
            assert binding["roleRef"]["apiGroup"] == "rbac.authorization.k8s.io"
            reference, namespace = binding["roleRef"], binding["metadata"].get("namespace")
            bound.add((reference["kind"], namespace, reference["name"]))
    assert bound == roles


def test_every_resource_is_one_that_the_client_knows() -> None:
    kinds = [kind for kind in vars(objects).values() if isinstance(kind, objects.Kind)]
    known = {("" if "/" not in k.api_version else k.api_version.split("/")[0], k.plural) for k in kinds}
    rights = operator_rights() | own_rights("x") | CLUSTER_RIGHTS | NODE_RIGHTS
    used = {(right.group, right.resource.removesuffix("/status")) for right in rights}
    # who asks what it may do needs no right for that
    assert known - used == {("authorization.k8s.io", "selfsubjectaccessreviews")}
    assert used <= known


def test_named_objects_are_those_of_the_code(default: Rendered) -> None:
    deployment = default.one("Deployment")["metadata"]["name"]
    lease = Settings.__dataclass_fields__["lease_name"].default
    named = {(right.resource, right.name) for right in own_rights(deployment) if right.name}
    assert named == {("secrets", MASTER_SECRET), ("leases", lease), ("deployments", deployment)}
    assert _environment(default)["TRITON_OPERATOR_LEASE_NAME"] == lease


def test_rights_used_only_in_races_are_granted() -> None:
    assert operator_rights() >= ONLY_IN_RACES
    assert Right("batch", "jobs", "get") in ONLY_IN_RACES


def test_every_rule_has_its_reason() -> None:
    lines = (CHART / "templates" / "_rules.tpl").read_text().splitlines()
    rules = [index for index, line in enumerate(lines) if line.startswith("- apiGroups")]
    assert len(rules) > 10
    assert all(re.match(r"# \S", lines[index - 1]) for index in rules)


def _place(role: dict[str, dict[str, str]]) -> tuple[object, ...]:
    return role["kind"], role["metadata"].get("namespace"), role["metadata"]["name"]


def _environment(rendered: Rendered) -> dict[str, str]:
    return {entry["name"]: entry.get("value", "") for entry in rendered.container["env"]}
