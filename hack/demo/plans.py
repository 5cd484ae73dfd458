"""TensorRT plans on the repository's volume, by the reports of the Jobs that compiled them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from demo.cluster import Object, Snapshot, is_true
from demo.command import output

KEEPER = "deployment/keeper-default"


@dataclass(frozen=True)
class Plan:
    """A plan, and what its report tells."""

    engine: str
    target: str
    tensorrt: str
    precision: str
    size_bytes: int
    compiler_seconds: float
    is_new: bool
    """Whether it was compiled just now, and not by an earlier demo."""


def plans_of(model: str, snapshot: Snapshot, *, before: Snapshot, namespace: str) -> Sequence[Plan]:
    """Return the plans of a model, in the order of their GPUs."""
    found = snapshot.get("InferenceModel", model) or {"status": {}}
    names = {name for version in found["status"].get("versions", []) for name in version["engines"]}
    compiled = [engine for engine in snapshot.of("Engine") if "from" in engine["spec"]]
    plans = [_read(each, before, namespace) for each in compiled if each["metadata"]["name"] in names]
    return sorted(plans, key=lambda plan: plan.target)


def _read(engine: Object, before: Snapshot, namespace: str) -> Plan:
    name = engine["metadata"]["name"]
    path = f"/repository/store/{name}/report.json"
    told = json.loads(output(["kubectl", "exec", "--namespace", namespace, KEEPER, "--", "cat", path]))
    target = told["target"]
    return Plan(
        engine=name,
        target=f"{target['product']} ({target['compute_capability']})",
        tensorrt=f"{told['compiler']['module']} {told['compiler']['version']}",
        precision=told["options"]["precision"],
        size_bytes=told["plan"]["bytes"],
        compiler_seconds=told["compiler_seconds"],
        is_new=not is_true(before.get("Engine", name), "Ready"),
    )
