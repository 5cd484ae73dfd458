"""What stands after a step: objects, volume, pods; without what differs from run to run by its nature."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

from google.protobuf import text_format

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.integration.kubelet_double import KubeletDouble
    from tests.integration.operator.stage import Stage
    from tests.integration.triton_double import TritonDouble

State = dict[str, Any]

OWN_KINDS = ("InferenceModel", "TritonServer", "ModelRepository", "Engine")
CHILD_KINDS = ("Deployment", "Service", "PodDisruptionBudget", "PersistentVolumeClaim")
NAMED = ("Job", "Secret")
"""Kinds of which the names tell all; a Job that was killed gives way to the next attempt."""

DIFFERENT = frozenset(
    {
        "attempt",  # a Job that was killed is followed by another
        "bytesFree",
        "bytesTotal",
        "clusterIP",
        "clusterIPs",
        "creationTimestamp",
        "digest",
        "job",
        "heldSeconds",
        "key",
        "lastTransitionTime",
        "revision",
        "seconds",  # that a build took
        "servedSince",
        "size",  # of an engine: its report tells its seconds
        "sizeBytes",
        "time",
        "triton-operator.io/attempt",
        "unusedSince",
        "volumeName",
    }
)
PASSING = frozenset({"Building", "Candidate", "Retiring"})
"""Turns of a version that are over before an operator that starts again may see them."""

UID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
POD = re.compile(r"(triton-default|keeper-default)-[0-9a-f]{6,10}-[a-z0-9]{5}")
TRACES = ((UID, "UID"), (POD, r"\1-POD"), (re.compile(r"-key-[0-9a-f]{8}"), "-key"))
RESOLVE = re.compile(r"resolve-[0-9a-f]{16}")
ATTEMPT = re.compile(r"-[0-9]+$")


def observe(stage: Stage) -> State:
    """Return what stands now, in names that every run has."""
    found = {
        "objects": _objects(stage),
        "volume": _volume(stage.volume()),
        "pods": _pods(stage.kubelet, stage.kube.namespace),
    }
    state: State = json.loads(_in_common_names(json.dumps(found), stage))
    for kind in NAMED:
        state["objects"][kind].sort()
    return state


def difference(expected: State, found: State) -> str:
    """Return in the form of a diff what is not as it was in the run that nothing disturbed."""
    before, after = (json.dumps(state, indent=1, sort_keys=True).splitlines() for state in (expected, found))
    return "\n".join(difflib.unified_diff(before, after, "undisturbed", "this run", n=2, lineterm=""))


def _in_common_names(text: str, stage: Stage) -> str:
    for engine, source in engines(stage).items():
        text = text.replace(engine, f"engine-of-{source}")
    text = text.replace(stage.kube.namespace, "NAMESPACE")
    for pattern, common in (*TRACES, (RESOLVE, "resolve")):
        text = pattern.sub(common, text)
    return text


def engines(stage: Stage) -> dict[str, str]:
    """Return the name of each engine's source by the engine's name."""
    sources = {hashlib.sha256(path.read_bytes()).hexdigest(): path.stem for path in stage.sources().iterdir()}
    objects = {e["metadata"]["name"]: e["spec"]["source"]["sha256"] for e in stage.kube.list("Engine")}
    manifests = stage.volume().glob("store/*/MANIFEST")
    entries = {path.parent.name: json.loads(path.read_text())["source_sha256"] for path in manifests}
    return {engine: sources.get(sha256, "unknown") for engine, sha256 in (entries | objects).items()}


def _objects(stage: Stage) -> State:
    found: State = {}
    for kind in OWN_KINDS:
        for each in stage.kube.list(kind):
            content = {"spec": each["spec"], "status": each.get("status")}
            found[f"{kind}/{each['metadata']['name']}"] = _stripped(content)
    for kind in CHILD_KINDS:
        found[kind] = {e["metadata"]["name"]: _stripped(_child(e)) for e in stage.kube.list(kind)}
    for kind in NAMED:
        found[kind] = [ATTEMPT.sub("", each["metadata"]["name"]) for each in stage.kube.list(kind)]
    return found


def _child(each: State) -> State:
    owners = [owner["name"] for owner in each["metadata"].get("ownerReferences", [])]
    return {"labels": each["metadata"].get("labels"), "owners": owners, "spec": each.get("spec")}


def _stripped(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _turns(inner) if key == "history" else _stripped(inner)
            for key, inner in value.items()
            if key not in DIFFERENT
        }
    if isinstance(value, list):
        return [_stripped(inner) for inner in value]
    return value


def _turns(history: list[State]) -> list[str]:
    """Return the turns that every run's story has, in their order; what they tell besides depends on when."""
    turns = [f"version {entry.get('version')}: {entry['reason']}" for entry in history]
    return [turn for turn, entry in zip(turns, history, strict=True) if entry["reason"] not in PASSING]


def _volume(root: Path) -> State:
    """Return every file by its path: links by their targets, configurations whole."""
    if not root.is_dir():
        return {}
    found: State = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_dir():
            found[name] = "directory"
        elif path.suffix in {".pbtxt", ".txt"}:
            found[name] = path.read_text()
        elif path.suffix == ".json" and path.parent.parent == root / "servers":
            found[name] = _stripped(json.loads(path.read_text()))
        else:
            found[name] = "file"
    return found


def _pods(kubelet: KubeletDouble, namespace: str) -> State:
    """Return how many keepers run, and what each Triton pod serves, in any order."""
    tritons = kubelet.tritons(namespace).values()
    return {
        "keepers": len(kubelet.pods(namespace, "keeper")),
        "tritons": sorted((_served(double) for double in tritons), key=json.dumps),
    }


def _served(double: TritonDouble) -> Mapping[str, Mapping[int, str]]:
    models = list(double.repository.models)
    served = {
        name: {
            number: text_format.MessageToString(version.config)
            for number, version in sorted(double.repository.ready(name).items())
        }
        for name in sorted(models)
    }
    return {name: versions for name, versions in served.items() if versions}
