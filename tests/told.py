"""What an object's status tells, for waits and for messages of failed tests."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.integration.kube import Kube

Object = dict[str, Any]


def condition_of(found: Object, type_: str) -> Object:
    """Return a condition of an object, or an empty one."""
    conditions = found.get("status", {}).get("conditions") or []
    return next((each for each in conditions if each["type"] == type_), {})


def expect_condition(
    kube: Kube, kind: str, name: str, type_: str, status: str, *, reason: str = ""
) -> Object:
    """Return an object that has a condition at its present generation, and fail if it has not."""
    found = kube.get(kind, name)
    condition = condition_of(found, type_)
    assert condition.get("status") == status, f"{kind}/{name}: {summary(found)}"
    assert condition.get("observedGeneration") == found["metadata"]["generation"]
    assert reason in ("", condition.get("reason")), f"{kind}/{name}: {summary(found)}"
    return found


def version_of(found: Object, number: int) -> Object:
    """Return what the status of a model says about a version, or an empty entry."""
    versions = found.get("status", {}).get("versions") or []
    return next((each for each in versions if each["number"] == number), {})


def summary(found: Object) -> str:
    """Return in a line what the status of an object says."""
    status = found.get("status", {})
    conditions = {
        each["type"]: " ".join(filter(None, (each["status"], each.get("reason"), each.get("message"))))
        for each in status.get("conditions") or []
    }
    versions = [
        {key: each.get(key) for key in ("number", "state", "reason", "message")}
        for each in status.get("versions") or []
    ]
    return json.dumps({"conditions": conditions, **({"versions": versions} if versions else {})})
