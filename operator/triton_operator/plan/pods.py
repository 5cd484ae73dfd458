"""What a pod says about itself: troubles in the words of scheduler and kubelet."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

Object = Mapping[str, Any]

_TROUBLED = {
    "ImagePullBackOff",
    "ErrImagePull",
    "ErrImageNeverPull",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "CrashLoopBackOff",
    "RunContainerError",
}


@dataclasses.dataclass(frozen=True)
class RunningContainer:
    """A container that runs: where it listens and which of its incarnations it is.

    `ready` is the pod's: a change of it is a good moment to ask the container again.
    """

    pod: str
    uid: str
    ip: str
    container_id: str
    ready: bool = False


def is_owned_by(obj: Object, uid: str) -> bool:
    """Tell whether an object names this UID among its owners."""
    return any(owner["uid"] == uid for owner in obj["metadata"].get("ownerReferences") or [])


def is_ready(pod: Object) -> bool:
    """Tell whether a pod is Ready and not on its way out."""
    conditions = pod.get("status", {}).get("conditions") or []
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]


def running(pod: Object, container: str) -> RunningContainer | None:
    """Return the pod's running container of this name, or None."""
    status = pod.get("status", {})
    if "deletionTimestamp" in pod["metadata"] or not status.get("podIP"):
        return None
    for item in status.get("containerStatuses") or []:
        if item["name"] == container and "running" in item.get("state", {}):
            metadata = pod["metadata"]
            return RunningContainer(
                pod=metadata["name"],
                uid=metadata["uid"],
                ip=status["podIP"],
                container_id=item.get("containerID", ""),
                ready=is_ready(pod),
            )
    return None


def scheduling(pod: Object) -> Object:
    """Return what the scheduler says of a pod, as the condition PodScheduled, or nothing yet."""
    conditions = pod.get("status", {}).get("conditions") or []
    return next((item for item in conditions if item["type"] == "PodScheduled"), {})


def waiting_trouble(pod: Object) -> tuple[str, str] | None:
    """Return why a pod doesn't run yet, as (reason, message), or None when nothing is wrong."""
    status, scheduled = pod.get("status", {}), scheduling(pod)
    if scheduled.get("status") == "False":
        reason, message = scheduled.get("reason"), scheduled.get("message")
        return reason or "Unschedulable", message or "the pod is not scheduled"
    containers = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    for item in containers:
        waiting = item.get("state", {}).get("waiting") or {}
        if waiting.get("reason") in _TROUBLED:
            return waiting["reason"], waiting.get("message") or waiting["reason"]
    return None


def failure(pod: Object) -> tuple[str, str] | None:
    """Return why a pod ended badly, as (reason, message)."""
    status = pod.get("status", {})
    name = pod["metadata"]["name"]
    if status.get("reason"):
        return status["reason"], status.get("message") or f"pod {name}: {status['reason']}"
    for item in status.get("containerStatuses") or []:
        ended = item.get("state", {}).get("terminated")
        if ended and ended.get("exitCode"):
            reason = ended.get("reason") or "Error"
            return reason, f"pod {name} ended with exit code {ended['exitCode']} ({reason})"
    return None


def termination_message(pod: Object) -> str:
    """Return the message that the pod's container left when it ended, or an empty string."""
    for item in pod.get("status", {}).get("containerStatuses") or []:
        ended = item.get("state", {}).get("terminated")
        if ended and ended.get("message"):
            return str(ended["message"])
    return ""


def has_ended(pod: Object) -> bool:
    """Tell whether a pod has run to its end."""
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def stands(pod: Object) -> bool:
    """Tell whether a pod is there to stay, whether or not its containers run just now."""
    return not has_ended(pod) and "deletionTimestamp" not in pod["metadata"]


def may_serve(pod: Object) -> bool:
    """Tell whether a pod may have begun to read its tree, even if nothing was heard of it yet."""
    return stands(pod) and bool(pod.get("spec", {}).get("nodeName")) and waiting_trouble(pod) is None


def needs_secret(deployment: Object | None, own_pods: Sequence[Object], secret: str) -> bool:
    """Tell whether a Secret that we may not read must be created, as far as others let us know.

    It must when no Deployment names it yet, or when the kubelet misses it.
    """
    if deployment is None or secret not in _secrets_of(deployment):
        return True
    troubles = (waiting_trouble(pod) for pod in own_pods)
    return any(trouble is not None and trouble[0] == "CreateContainerConfigError" for trouble in troubles)


def _secrets_of(deployment: Object) -> set[str]:
    containers = deployment["spec"]["template"]["spec"]["containers"]
    variables = [variable for container in containers for variable in container.get("env") or []]
    references = [v["valueFrom"].get("secretKeyRef") for v in variables if v.get("valueFrom")]
    return {reference["name"] for reference in references if reference}
