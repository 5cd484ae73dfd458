"""The release gate: a pod with GPUs asks its own image first whether it can run the plans of its tree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from engine_builder import check_release
from triton_operator.plan import pods, podspec
from triton_operator.plan.outcome import Stalled
from triton_operator.plan.podspec import Manifest
from triton_operator.resources.triton_server import TritonServer

CONTAINER = "release"
RELEASE_MISMATCH = "ReleaseMismatch"

_CODE = Path(check_release.__file__).read_text(encoding="utf-8")
"""As text: an image of ours in this pod would replace all pods at every upgrade of the operator."""
_ENTRY = f"""\
command -v python3 >/dev/null || {{ echo "no python3 in this image: nothing was compared"; exit 0; }}
python3 -c "$@"
[ $? -ne {check_release.REFUSED} ] || exit {check_release.REFUSED}"""
"""Whatever ends otherwise than with a refusal holds up nobody."""


def container(server: TritonServer, *, tree: str) -> Manifest:
    """Return the init container; it sees the libraries that Triton will see, and no GPU."""
    spec = server.spec
    variables = {each.name: podspec.literal(each.value) for each in spec.env}
    variables["NVIDIA_VISIBLE_DEVICES"] = "void"
    return {
        "name": CONTAINER,
        "image": spec.image,
        **({"imagePullPolicy": spec.image_pull_policy.value} if spec.image_pull_policy is not None else {}),
        "command": ["sh", "-c", _ENTRY, "check-release"],
        "args": [podspec.literal(_CODE), tree, "/dev/termination-log"],
        "env": [{"name": name, "value": value} for name, value in variables.items()],
        "securityContext": podspec.CONTAINER_SECURITY,
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
        "terminationMessagePolicy": "File",
        "volumeMounts": [podspec.mount("repository", podspec.REPOSITORY_MOUNT, read_only=True)],
    }


def refusal(server: TritonServer, own_pods: Iterable[Mapping[str, Any]]) -> Stalled | None:
    """Return what to do about the first pod that its image refused to start, or None."""
    for pod in filter(pods.stands, own_pods):
        said = _refused(pod)
        if said is not None:
            return Stalled(RELEASE_MISMATCH, f"pod {pod['metadata']['name']}: {said}: {_advice(server)}")
    return None


def _refused(pod: Mapping[str, Any]) -> str | None:
    """Return what the gate said when it ended last, if it refused."""
    for item in pod.get("status", {}).get("initContainerStatuses") or []:
        ended = item.get("state", {}).get("terminated") or item.get("lastState", {}).get("terminated") or {}
        if item["name"] == CONTAINER and ended.get("exitCode") == check_release.REFUSED:
            return ended.get("message") or "the image has another TensorRT than the engines were built with"
    return None


def _advice(server: TritonServer) -> str:
    return (
        f"if spec.image is not of release {server.release}, set spec.release to its own; else set "
        "spec.compilerImage to the TensorRT image of that release, and remove these engines from the store: "
        "they are built anew then"
    )
