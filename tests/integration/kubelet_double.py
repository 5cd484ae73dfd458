"""Scheduler, kubelet and storage provisioner for the few pods we have, against the real API server.

Deployments, ReplicaSets, Jobs and garbage collection are the real controllers' work
(`controllers.py`). Here pods are bound to two nodes, get loopback addresses and run: keepers and
jobs as real local processes, Triton pods as doubles. Claims get directories of this host.

The double runs in a thread with an event loop of its own; tests call its methods from theirs.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import dataclasses
import itertools
import json
import os
import shutil
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
from tests.integration.containers import TritonContainer
from tests.integration.kube import path_of
from tests.integration.pod_double import PodDouble
from tests.integration.triton_repository import Faults

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterator

    from tests.integration.apiserver import ApiServer
    from tests.integration.triton_double import TritonDouble

NODES = ("double-1", "double-2")
GPU = "nvidia.com/gpu"
PROVISIONER = "tests.triton-operator.io/directory"
TMPFS_SIZE = "tests.triton-operator.io/size"
"""Annotation of a claim that is to have a small file system of its own (root needed)."""
NOT_FOUND = 404
WATCH_SECONDS = 24 * 3600

Object = dict[str, Any]


@dataclasses.dataclass
class Switches:
    """What tests may change while pods run."""

    hold_jobs: bool = False
    """Whether pods of Jobs wait with their container Running, its command not yet begun."""
    unschedulable: bool = False
    """Whether new pods find no node."""
    gpus: dict[str, int] = dataclasses.field(default_factory=dict)
    """Namespace → GPUs that its pods have among them; without an entry, as many as they ask for."""
    environment: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)
    """Namespace → variables that containers which start there find besides their own."""
    faults: dict[str, Faults] = dataclasses.field(default_factory=dict)
    """Namespace → faults with which new Triton pods start there."""


class AsyncApi:
    """Requests and watches of the double's own loop."""

    def __init__(self, server: ApiServer) -> None:
        import ssl

        self._url = server.url
        context = ssl.create_default_context(cafile=str(server.certificate))
        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {server.token}"},
            connector=aiohttp.TCPConnector(ssl=context, limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
        )

    async def close(self) -> None:
        await self._session.close()
        await asyncio.sleep(0.25)  # TLS transports say goodbye after close() has returned

    async def send(
        self, method: str, path: str, body: Object | None = None, *, content: str = "json"
    ) -> Object | None:
        """Send a request; None when the object is not there or somebody was faster."""
        data = None if body is None else json.dumps(body)
        headers = {"Content-Type": f"application/{content}"}
        async with self._session.request(method, self._url + path, data=data, headers=headers) as answer:
            decoded: Object = await answer.json()
            if answer.status in (404, 409, 422):
                return None
            answer.raise_for_status()
            return decoded

    async def watch(self, kind: str) -> AsyncIterator[tuple[str, Object]]:
        """Yield what exists as ADDED, then changes, until cancelled."""
        listed = await self.send("GET", path_of(kind)) or {}
        for item in listed["items"]:
            yield "ADDED", item
        version = listed["metadata"]["resourceVersion"]
        # without a limit of its own a watch ends after half an hour to an hour
        path = f"{path_of(kind)}?watch=true&timeoutSeconds={WATCH_SECONDS}&resourceVersion={version}"
        async with self._session.get(self._url + path) as answer:
            async for line in answer.content:
                event = json.loads(line)
                yield event["type"], event["object"]


class KubeletDouble:
    """Runs every pod of the cluster that is one of ours."""

    def __init__(self, server: ApiServer, directory: Path) -> None:
        self.switches = Switches()
        self.directory = directory
        self._server = server
        self._pods: dict[str, PodDouble] = {}
        self._holding: dict[str, int] = {}  # UID of a pod → GPUs
        self._tasks: set[asyncio.Task[None]] = set()
        self._mounted: list[Path] = []
        self._addresses = _addresses()
        self._nodes = itertools.cycle(NODES)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="kubelet-double", daemon=True)

    # what tests call

    def start(self) -> None:
        """Register the nodes and begin to watch."""
        self._thread.start()
        self._call(self._start())

    def stop(self) -> None:
        """End every container and the double itself."""
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        for mount in self._mounted:
            subprocess.run(["umount", str(mount)], check=False)
        shutil.rmtree(self.directory, ignore_errors=True)

    def volume(self, namespace: str, claim: str) -> Path:
        """Return the directory that stands for a claim."""
        return self.directory / "volumes" / namespace / claim

    def pods(self, namespace: str, component: str) -> list[PodDouble]:
        """Return the pods of a component, oldest first."""
        return [
            pod
            for pod in list(self._pods.values())
            if (pod.namespace, pod.component) == (namespace, component)
        ]

    def tritons(self, namespace: str) -> dict[str, TritonDouble]:
        """Return the Triton doubles of a namespace by pod name."""
        pods = self.pods(namespace, "triton")
        return {pod.name: pod.container.double for pod in pods if isinstance(pod.container, TritonContainer)}

    def crash(self, pod: PodDouble) -> None:
        """Kill a pod's container, as the kernel does when memory runs out."""
        self._call(pod.crash())

    def evict(self, pod: PodDouble) -> None:
        """Kill a pod for the node's sake; the pod stays as Failed with reason Evicted."""
        self._call(pod.evict())

    def lose_node_of(self, pod: PodDouble) -> None:
        """Let a pod vanish with its node: processes gone, then the object."""
        self._call(pod.vanish())

    def logs(self, namespace: str) -> str:
        """Return the ends of all container logs of a namespace."""
        logs = sorted((self.directory / "pods").glob(f"{namespace}.*/log"))
        return "\n".join(f"--- {log.parent.name}\n{log.read_text(errors='replace')[-2000:]}" for log in logs)

    # inside the loop

    def _call(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout=60)

    async def _start(self) -> None:
        self._api = AsyncApi(self._server)
        for name in NODES:
            await self._register(name)
        self._spawn(self._follow_pods())
        self._spawn(self._follow_claims())

    async def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(pod.stop() for pod in self._pods.values()), return_exceptions=True)
        await self._api.close()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _register(self, name: str) -> None:
        labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}
        await self._api.send("POST", path_of("Node"), node)
        status = {
            "capacity": {"cpu": "64", "memory": "256Gi", "pods": "1000"},
            "allocatable": {"cpu": "64", "memory": "256Gi", "pods": "1000"},
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
        }
        path = path_of("Node", name=name, subresource="status")
        await self._api.send("PATCH", path, {"status": status}, content="merge-patch+json")

    async def _follow_pods(self) -> None:
        async for change, pod in self._api.watch("Pod"):
            uid = pod["metadata"]["uid"]
            known = self._pods.get(uid)
            if change == "DELETED":
                self._holding.pop(uid, None)
                if known:
                    self._pods.pop(uid)
                    self._spawn(known.stop())
            elif known is None:
                self._pods[uid] = known = self._new_pod(pod)
                self._spawn(known.run())
            if known and pod["metadata"].get("deletionTimestamp"):
                self._spawn(known.terminate())

    def _new_pod(self, pod: Object) -> PodDouble:
        metadata = pod["metadata"]
        return PodDouble(
            self._api,
            pod,
            address=next(self._addresses),
            node=lambda: None if self.switches.unschedulable else self._node_for(pod),
            take_gpus=lambda: self._take_gpus(pod),
            directory=self.directory / "pods" / f"{metadata['namespace']}.{metadata['name']}",
            volume=lambda claim: self.volume(metadata["namespace"], claim),
            held=lambda: self.switches.hold_jobs,
            variables=lambda: self.switches.environment.get(metadata["namespace"], {}),
            faults=copy.deepcopy(self.switches.faults.get(metadata["namespace"], Faults())),
        )

    def _node_for(self, pod: Object) -> str | None:
        """Return the next node, unless the pod selects by labels that ours don't have."""
        wanted = pod["spec"].get("nodeSelector", {})
        for _ in NODES:
            node = next(self._nodes)
            if wanted.get("kubernetes.io/hostname", node) == node and wanted.keys() <= {
                "kubernetes.io/hostname"
            }:
                return node
        return None

    def _take_gpus(self, pod: Object) -> str:
        """Let a pod have its GPUs, or return why it can't, in the scheduler's words."""
        namespace, uid = pod["metadata"]["namespace"], pod["metadata"]["uid"]
        limits = [each.get("resources", {}).get("limits", {}) for each in pod["spec"]["containers"]]
        wanted = sum(int(each.get(GPU, 0)) for each in limits)
        others = [each for each in self._pods.items() if each[1].namespace == namespace and each[0] != uid]
        held = sum(self._holding.get(other, 0) for other, each in others if not each.has_ended)
        if wanted and held + wanted > self.switches.gpus.get(namespace, held + wanted):
            return (
                f"2 Insufficient {GPU}. preemption: 0/2 nodes are available: 2 No preemption victims found."
            )
        self._holding[uid] = wanted
        return ""

    async def _follow_claims(self) -> None:
        async for change, claim in self._api.watch("PersistentVolumeClaim"):
            if change != "DELETED" and not claim["spec"].get("volumeName"):
                await self._provision(claim)

    async def _provision(self, claim: Object) -> None:
        """Make a volume for a claim; the real controller binds the two."""
        metadata, spec = claim["metadata"], claim["spec"]
        directory = self.volume(metadata["namespace"], metadata["name"])
        directory.mkdir(parents=True, exist_ok=True)
        if size := metadata.get("annotations", {}).get(TMPFS_SIZE):
            command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tests", str(directory)]
            await asyncio.to_thread(subprocess.run, command, check=True)
            self._mounted.append(directory)
        reference = {"kind": "PersistentVolumeClaim", "apiVersion": "v1"}
        volume = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {
                "name": f"pvc-{metadata['uid']}",
                "annotations": {"pv.kubernetes.io/provisioned-by": PROVISIONER},
            },
            "spec": {
                "capacity": spec["resources"]["requests"],
                "accessModes": spec["accessModes"],
                "storageClassName": spec.get("storageClassName", ""),
                "persistentVolumeReclaimPolicy": "Retain",
                "hostPath": {"path": str(directory)},
                "claimRef": reference | {key: metadata[key] for key in ("namespace", "name", "uid")},
            },
        }
        await self._api.send("POST", path_of("PersistentVolume"), volume)


@contextlib.contextmanager
def kubelet_double(server: ApiServer, directory: Path) -> Iterator[KubeletDouble]:
    """Run the double for as long as the block lasts."""
    double = KubeletDouble(server, directory)
    double.start()
    try:
        yield double
    finally:
        double.stop()


def _addresses() -> Iterator[str]:
    """Yield loopback addresses; two test runs on one host have different ones."""
    second = 16 + os.getpid() % 200
    for third, fourth in itertools.product(range(256), range(1, 255)):
        yield f"127.{second}.{third}.{fourth}"
