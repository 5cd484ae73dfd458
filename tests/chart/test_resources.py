"""ModelRepositories and TritonServers from values: as the CRDs have them, where the operator looks."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator
from tests.chart.helm import FULL_VALUES, ROOT, Object, refusal, render

from triton_operator.resources.model_repository import ModelRepository
from triton_operator.resources.triton_server import TritonServer

A_SERVER: Object = {"name": "default", "spec": {"image": "nvcr.io/nvidia/tritonserver:26.07-py3"}}
A_REPOSITORY: Object = {"name": "default", "spec": {"storage": {"size": "10Gi"}}}


@pytest.mark.parametrize("kind", ["ModelRepository", "TritonServer"])
def test_resources_from_values_are_what_the_crd_takes(kind: str) -> None:
    found = render(FULL_VALUES).all(kind)
    assert len(found) == 2
    for resource in found:
        errors = [f"{list(error.path)}: {error.message}" for error in _validator(kind).iter_errors(resource)]
        assert errors == []


def test_crd_check_notices_a_field_that_is_unknown() -> None:
    bad = render({"tritonServers": [{**A_SERVER, "spec": {**A_SERVER["spec"], "replica": 2}}]})
    assert list(_validator("TritonServer").iter_errors(bad.one("TritonServer")))


def test_spec_arrives_unchanged() -> None:
    given = yaml.safe_load(FULL_VALUES.read_text())
    rendered = render(FULL_VALUES)
    for key, kind in (("modelRepositories", "ModelRepository"), ("tritonServers", "TritonServer")):
        wanted = {(e["namespace"], e["name"]): e["spec"] for e in given[key]}
        found = {(o["metadata"]["namespace"], o["metadata"]["name"]): o["spec"] for o in rendered.all(kind)}
        assert found == wanted


def test_operator_reads_them() -> None:
    rendered = render({"tritonServers": [A_SERVER], "modelRepositories": [A_REPOSITORY]})
    server, repository = rendered.one("TritonServer"), rendered.one("ModelRepository")
    for resource in (server, repository):
        resource["metadata"]["uid"] = "11111111-1111-1111-1111-111111111111"
    assert TritonServer.parse(server).release == "26.07"
    assert ModelRepository.parse(repository).claim_name == "repository-default"


def test_namespace_is_the_releases_unless_given() -> None:
    there = {**A_SERVER, "namespace": "vision"}
    servers = render({"tritonServers": [A_SERVER, there]}).all("TritonServer")
    assert [server["metadata"]["namespace"] for server in servers] == ["operators", "vision"]


def test_resource_where_the_operator_does_not_look_is_refused() -> None:
    message = refusal({"watchNamespaces": ["vision"], "tritonServers": [A_SERVER]})
    assert "tritonServers[0]: default would be in namespace operators" in message
    assert "watchNamespaces" in message


def _validator(kind: str) -> Draft7Validator:
    for file in (ROOT / "crds").glob("*.yaml"):
        crd = yaml.safe_load(file.read_text())
        if crd["spec"]["names"]["kind"] == kind:
            return Draft7Validator(_strict(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]))
    raise AssertionError(f"no CRD of {kind}")


def _strict(schema: Object) -> Object:
    """Return the schema as the API server reads it for `kubectl --validate=strict`."""
    schema = copy.deepcopy(schema)
    metadata: Object = {"properties": {"name": {}, "namespace": {}, "labels": {}}}
    schema["properties"]["metadata"] |= metadata
    closed: Object = _closed(schema)
    return closed


def _closed(node: Any) -> Any:
    if isinstance(node, list):
        return [_closed(item) for item in node]
    if not isinstance(node, dict):
        return node
    closed = {key: _closed(value) for key, value in node.items()}
    if closed.get("type") == "object" and isinstance(closed.get("properties"), dict):
        closed.setdefault("additionalProperties", False)
    return closed
