"""The storage class: a tmpfs of the claimed size for each claim, seen by both nodes.

A tmpfs is full at its size: a test that fills a volume sees the real "no space left on device".
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from localcluster.api import Api, ApiError
from localcluster.command import run
from localcluster.errors import ClusterError
from localcluster.layout import STORAGE_CLASS, Layout
from localcluster.mounts import mounts_below, unmount
from localcluster.objects import PROVISIONER
from localcluster.progress import say
from localcluster.quantities import to_bytes

CLAIMS = "/api/v1/persistentvolumeclaims"
VOLUMES = "/api/v1/persistentvolumes"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
ACCESS_MODES = ["ReadWriteMany", "ReadWriteOnce", "ReadOnlyMany"]
RESYNC_SECONDS = 30.0
RETRY_SECONDS = 1.0
CONFLICT = 409
GONE = 404


@dataclass(frozen=True)
class Claim:
    """A claim that waits for its volume."""

    namespace: str
    name: str
    uid: str
    storage: str

    @property
    def volume(self) -> str:
        """Name of its volume: the same at every attempt."""
        return f"pvc-{self.uid}"


def waiting_claims(claims: list[dict[str, Any]]) -> list[Claim]:
    """Pick the claims that want a volume of our class and have none."""
    return [_claim(claim) for claim in claims if _waits(claim)]


def released_volumes(volumes: list[dict[str, Any]]) -> list[str]:
    """Pick the names of our volumes whose claim is gone."""
    return [volume["metadata"]["name"] for volume in volumes if _is_released(volume)]


def persistent_volume(claim: Claim, path: Path) -> dict[str, Any]:
    """Return the volume of a claim, bound to it and to no later claim of the same name."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        # The annotation keeps the controller manager from deleting the volume in our stead.
        "metadata": {"name": claim.volume, "annotations": {PROVISIONED_BY: PROVISIONER}},
        "spec": {
            "capacity": {"storage": claim.storage},
            "accessModes": ACCESS_MODES,
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": STORAGE_CLASS,
            "hostPath": {"path": str(path), "type": "Directory"},
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": claim.namespace,
                "name": claim.name,
                "uid": claim.uid,
            },
        },
    }


def serve(layout: Layout) -> None:
    """Provision until the process is ended."""
    api = Api.from_kubeconfig(layout.kubeconfig)
    changed = threading.Event()
    for collection in (CLAIMS, VOLUMES):
        threading.Thread(target=_watch, args=(api, collection, changed), daemon=True).start()
    while True:
        complete = _reconcile(api, layout.volumes)
        changed.wait(RESYNC_SECONDS if complete else RETRY_SECONDS)
        changed.clear()


def _watch(api: Api, collection: str, changed: threading.Event) -> None:
    while True:
        try:
            _signal_events(api, collection, changed)
        except ApiError as broken:
            say(f"watch of {collection}: {broken}")
            time.sleep(RETRY_SECONDS)


def _signal_events(api: Api, collection: str, changed: threading.Event) -> None:
    for _ in api.watch(collection):
        changed.set()


def _reconcile(api: Api, folder: Path) -> bool:
    """Make one pass; tell whether all of it succeeded."""
    try:
        claims = waiting_claims(api.get(CLAIMS)["items"])
        released = released_volumes(api.get(VOLUMES)["items"])
    except ApiError as failed:
        say(f"retrying: {failed}")
        return False
    provided = [_attempt(partial(_provide, api, claim, folder / claim.volume)) for claim in claims]
    withdrawn = [_attempt(partial(_withdraw, api, name, folder / name)) for name in released]
    return all([*provided, *withdrawn])


def _attempt(action: Callable[[], None]) -> bool:
    """Do one thing; its failure must not keep the others waiting."""
    try:
        action()
    except (ApiError, ClusterError, OSError, ValueError) as failed:
        say(f"retrying: {failed}")
        return False
    return True


def _provide(api: Api, claim: Claim, path: Path) -> None:
    path.mkdir(parents=True, exist_ok=True)
    if not _is_mounted(path):
        size = to_bytes(claim.storage)
        run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0777", "localcluster-volume", path])
    try:
        api.create(VOLUMES, persistent_volume(claim, path))
    except ApiError as refused:
        if refused.status != CONFLICT:  # made by the attempt before
            raise
        return
    say(f"provided {claim.volume} ({claim.storage}) for {claim.namespace}/{claim.name}")


def _withdraw(api: Api, name: str, path: Path) -> None:
    if _is_mounted(path):
        unmount(path)
    if path.is_dir():
        path.rmdir()
    try:
        api.delete(f"{VOLUMES}/{name}")
    except ApiError as refused:
        if refused.status != GONE:
            raise
    say(f"withdrew {name}")


def _is_mounted(path: Path) -> bool:
    return any(mount.point == path for mount in mounts_below(path.parent))


def _waits(claim: dict[str, Any]) -> bool:
    spec = claim["spec"]
    return (
        spec.get("storageClassName") == STORAGE_CLASS
        and not spec.get("volumeName")
        and "deletionTimestamp" not in claim["metadata"]
        and claim.get("status", {}).get("phase", "Pending") == "Pending"
    )


def _claim(claim: dict[str, Any]) -> Claim:
    metadata = claim["metadata"]
    storage = claim["spec"]["resources"]["requests"]["storage"]
    return Claim(metadata["namespace"], metadata["name"], metadata["uid"], storage)


def _is_released(volume: dict[str, Any]) -> bool:
    ours = volume["metadata"].get("annotations", {}).get(PROVISIONED_BY) == PROVISIONER
    return (
        ours
        and volume.get("status", {}).get("phase") in {"Released", "Failed"}
        and "deletionTimestamp" not in volume["metadata"]
    )
