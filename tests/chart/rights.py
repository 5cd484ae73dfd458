"""The operator's rights, as a table: what its code asks of the API server, and nothing else.

`test_rights` compares the chart's rules with it; so can a test that reads an audit log.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple


class Right(NamedTuple):
    """One verb on one resource; `name` is empty where the rule names no object."""

    group: str
    resource: str
    verb: str
    name: str = ""


def _rights(group: str, resources: str, verbs: str, name: str = "") -> set[Right]:
    pairs = itertools.product(resources.split(), verbs.split())
    return {Right(group, resource, verb, name) for resource, verb in pairs}


def operator_rights() -> set[Right]:
    """Return the rights in the namespaces that the operator works in."""
    ours = "triton-operator.io"
    statuses = "engines/status inferencemodels/status modelrepositories/status tritonservers/status"
    return (
        _rights(ours, "inferencemodels modelrepositories tritonservers", "list watch")
        | _rights(ours, statuses, "patch")
        | _rights(ours, "engines", "get list watch create patch delete")
        | _rights("apps", "deployments", "get list watch create patch")
        | _rights("", "services", "get list watch create patch delete")
        | _rights("batch", "jobs", "get list watch create delete")
        | _rights("policy", "poddisruptionbudgets", "get list watch create patch")
        | _rights("", "pods", "list watch patch")
        | _rights("", "persistentvolumeclaims", "get list watch create")
        | _rights("", "secrets", "create")
        | _rights("events.k8s.io", "events", "create")
    )


def own_rights(deployment: str) -> set[Right]:
    """Return the rights in the operator's own namespace; `deployment` is its Deployment's name."""
    return (
        _rights("", "secrets", "get", "triton-operator-master-key")
        | _rights("", "secrets", "create")
        | _rights("coordination.k8s.io", "leases", "get update", "triton-operator")
        | _rights("coordination.k8s.io", "leases", "create")
        | _rights("apps", "deployments", "get", deployment)
    )


CLUSTER_RIGHTS = {Right("", "namespaces", "get", "kube-system")}

NODE_RIGHTS = _rights("", "nodes", "list watch")
"""Rights of an operator that works in all namespaces; one of some may be given them by hand."""

ONLY_IN_RACES = _rights("batch", "jobs", "get")
"""Rights that a run without mishaps never uses, so an audit log may not show them.

An object of the name exists that no watch has shown: it is foreign, or brand-new.
"""


def granted(rules: Iterable[Mapping[str, Any]]) -> set[Right]:
    """Return the rights that a role's rules give."""
    found: set[Right] = set()
    for rule in rules:
        names = rule.get("resourceNames") or [""]
        parts = itertools.product(rule["apiGroups"], rule["resources"], rule["verbs"], names)
        found |= {Right(*part) for part in parts}
    return found
