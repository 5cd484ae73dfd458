"""Valid manifests, and ways to change one value of them."""

from __future__ import annotations

import copy
from typing import Any

Manifest = dict[str, Any]

API_VERSION = "triton-operator.io/v1alpha1"
SHA = "a" * 64
OTHER_SHA = "b" * 64
KEY = "5f1c0a9e2b7d4c11" + "0" * 48


class _Absent:
    """Stands for a field that is taken out."""

    def __repr__(self) -> str:
        return "absent"


ABSENT = _Absent()


def a_model() -> Manifest:
    """Return an InferenceModel with a version that has a digest and one that has none."""
    pinned = {"number": 1, "source": {"uri": "pvc://models/text/1.onnx", "sha256": SHA}}
    open_ended = {"number": 2, "source": {"uri": "pvc://models/text/2.onnx"}, "build": {"maxBatchSize": 8}}
    spec = {"backend": "ONNXRuntime", "servers": ["a10", "l4"], "versions": [pinned, open_ended]}
    return _manifest("InferenceModel", "text", spec)


def a_named_model() -> Manifest:
    """Return an InferenceModel with a modelName."""
    return changed(a_model(), "spec.modelName", "text_detection")


def a_tensorrt_model() -> Manifest:
    """Return an InferenceModel whose build leaves the batch to its profiles."""
    version = {
        "number": 1,
        "source": {"uri": "pvc://models/1.onnx"},
        "build": {"profiles": [profile_up_to(20)]},
    }
    return _manifest("InferenceModel", "detection", {"backend": "TensorRT", "versions": [version]})


def a_calibrated_model() -> Manifest:
    """Return an InferenceModel with calibration data from elsewhere."""
    calibration = {"uri": "s3://data/c.npz", "secretName": "s3-read"}
    return changed(a_model(), "spec.versions.0.build", {"precision": "INT8", "calibration": calibration})


def profile_up_to(batch: int) -> Manifest:
    """Return a profile of two inputs, for batches up to this."""
    sizes = {"min": [1, 320], "opt": [8, 640], "max": [batch, 640]}
    return {"inputs": [{"name": "images"} | sizes, {"name": "masks"} | sizes]}


def a_server() -> Manifest:
    """Return a TritonServer."""
    return _manifest("TritonServer", "a10", {"image": "registry.example/tritonserver:26.07-py3"})


def a_repository() -> Manifest:
    """Return a ModelRepository on a claim that exists."""
    return _manifest("ModelRepository", "default", {"claimName": "models"})


def a_repository_with_storage() -> Manifest:
    """Return a ModelRepository whose claim the operator makes."""
    return _manifest("ModelRepository", "default", {"storage": {"size": "10Gi", "className": "nfs"}})


def an_engine() -> Manifest:
    """Return an Engine."""
    spec = {
        "key": KEY,
        "backend": "ONNXRuntime",
        "repository": "default",
        "source": {"uri": "pvc://models/text/1.onnx", "sha256": SHA},
        "prepareVersion": 1,
    }
    return _manifest("Engine", f"onnxruntime-{KEY[:16]}", spec)


def a_calibrated_engine() -> Manifest:
    """Return an Engine with calibration data from elsewhere."""
    calibration = {"uri": "s3://data/c.npz", "secretName": "s3-read", "sha256": SHA}
    return changed(an_engine(), "spec.build", {"precision": "INT8", "calibration": calibration})


def changed(manifest: Manifest, path: str, value: object) -> Manifest:
    """Return a copy with the value at a dotted path (numbers are places in lists) set or taken out."""
    result = copy.deepcopy(manifest)
    *parents, last = path.split(".")
    node: Any = result
    for part in parents:
        node = node[int(part)] if isinstance(node, list) else node.setdefault(part, {})
    if value is ABSENT:
        del node[last]
    elif isinstance(node, list):
        node[int(last) : int(last) + 1] = [value]
    else:
        node[last] = value
    return result


def _manifest(kind: str, name: str, spec: Manifest) -> Manifest:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}
