"""When each stage on the way from apply to Ready was reached, as the demo saw it."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from demo.cluster import Object, Snapshot, condition, is_true, label

MANAGED_BY = "app.kubernetes.io/managed-by"


@dataclass(frozen=True)
class Target:
    """What the demo waits for."""

    namespace: str
    model: str
    server: str
    version: int


Reached = Callable[[Snapshot, Target], bool]


def _sample_copied(snapshot: Snapshot, _target: Target) -> bool:
    jobs = [job for job in snapshot.of("Job") if label(job, MANAGED_BY) != "triton-operator"]
    # Kubernetes removes an ended Job after a while: one that is gone has done its work.
    done = all(condition(job, "Complete").get("status") == "True" for job in jobs)
    return done and bool(jobs or snapshot.of("Engine"))


def _keeper_ready(snapshot: Snapshot, _target: Target) -> bool:
    return any(condition(pod, "Ready").get("status") == "True" for pod in snapshot.pods("keeper"))


def _digest_known(snapshot: Snapshot, target: Target) -> bool:
    return bool(_version(snapshot, target).get("sha256"))


def _engine_ready(snapshot: Snapshot, target: Target) -> bool:
    engines = _version(snapshot, target).get("engines", [])
    return bool(engines) and all(is_true(snapshot.get("Engine", name), "Ready") for name in engines)


def _tree_published(snapshot: Snapshot, target: Target) -> bool:
    server = snapshot.get("TritonServer", target.server)
    return bool(server and server.get("status", {}).get("models"))


def _pods_ready(snapshot: Snapshot, target: Target) -> bool:
    server = snapshot.get("TritonServer", target.server)
    pods = snapshot.pods("triton", server=target.server)
    ready = [pod for pod in pods if condition(pod, "Ready").get("status") == "True"]
    return server is not None and len(ready) >= server["spec"]["replicas"]


def _loaded(snapshot: Snapshot, target: Target) -> bool:
    have, _, want = str(_version(snapshot, target).get("pods", "")).partition("/")
    return have == want and have not in {"", "0"}


def _checked(snapshot: Snapshot, target: Target) -> bool:
    return "checks" in _version(snapshot, target)


def _model_ready(snapshot: Snapshot, target: Target) -> bool:
    return is_true(snapshot.get("InferenceModel", target.model), "Ready")


STAGES: Mapping[str, Reached] = {
    "sample model copied": _sample_copied,
    "volume claimed, keeper ready": _keeper_ready,
    "digest of the source found": _digest_known,
    "engine prepared": _engine_ready,
    "tree published": _tree_published,
    "Triton pods ready": _pods_ready,
    "loaded on every pod": _loaded,
    "answers checked": _checked,
    "InferenceModel Ready": _model_ready,
}


class Milestones:
    """Seconds from apply until each stage was first seen."""

    def __init__(self, target: Target, began: float) -> None:
        self._target = target
        self._began = began
        self.seconds: dict[str, float] = {}

    def look(self, snapshot: Snapshot) -> bool:
        """Note which stages this snapshot is the first to show; tell whether that was the last of them."""
        for name, reached in STAGES.items():
            if name not in self.seconds and reached(snapshot, self._target):
                self.seconds[name] = time.monotonic() - self._began
        return len(self.seconds) == len(STAGES)


def in_order(seconds: Mapping[str, float]) -> Sequence[tuple[str, float, float]]:
    """Return each stage with its second, and how long after the one before it came."""
    ordered = sorted(seconds.items(), key=lambda item: item[1])
    before = [0.0, *(second for _, second in ordered)]
    return [(name, second, second - last) for (name, second), last in zip(ordered, before, strict=False)]


def job_steps(snapshot: Snapshot) -> Sequence[tuple[str, str, float]]:
    """Return what prepare and resolve Jobs report about themselves: (job, step, seconds)."""
    rows = []
    for component in ("resolve", "prepare"):
        for pod in snapshot.pods(component):
            job = label(pod, "job-name") or label(pod, "batch.kubernetes.io/job-name")
            rows += [(job, step, seconds) for step, seconds in _reported(pod).items()]
    return rows


def _reported(pod: Object) -> Mapping[str, float]:
    for status in pod["status"].get("containerStatuses", []):
        message = status.get("state", {}).get("terminated", {}).get("message", "")
        try:
            seconds = json.loads(message)["seconds"]
        except (ValueError, KeyError, TypeError):
            continue
        return {str(step): float(taken) for step, taken in seconds.items()}
    return {}


def _version(snapshot: Snapshot, target: Target) -> Object:
    model = snapshot.get("InferenceModel", target.model)
    versions = model.get("status", {}).get("versions", []) if model else []
    return next((entry for entry in versions if entry["number"] == target.version), {})
