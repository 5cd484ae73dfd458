"""What an object's status tells, for waits and for messages of failed tests."""

from __future__ import annotations

import json
from typing import Any

Object = dict[str, Any]


def condition_of(found: Object, type_: str) -> Object:
    """Return a condition of an object, or an empty one."""
    conditions = found.get("status", {}).get("conditions") or []
    return next((each for each in conditions if each["type"] == type_), {})


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
