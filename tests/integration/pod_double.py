"""One pod's life as scheduler and kubelet lead it, with the status that they write."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import datetime
import uuid
from typing import TYPE_CHECKING, Any

from tests.integration.containers import KILLED, Container, Ended, Setting, environment_of, make_container
from tests.integration.kube import path_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.integration.kubelet_double import AsyncApi
    from tests.integration.triton_repository import Faults

COMPONENT = "app.kubernetes.io/component"
PAUSE_SECONDS = 0.1
RESTART_SECONDS = 0.5
GRACE_SECONDS = 5.0

Object = dict[str, Any]


class PodDouble:
    """A pod with one container; `faults` are those of a Triton in it.

    Init containers run in Triton pods alone: those of Jobs bring our code, which is here already.
    """

    def __init__(
        self,
        api: AsyncApi,
        pod: Object,
        *,
        address: str,
        node: Callable[[], str | None],
        take_gpus: Callable[[], str],
        directory: Path,
        volume: Callable[[str], Path],
        held: Callable[[], bool],
        variables: Callable[[], Mapping[str, str]],
        faults: Faults,
    ) -> None:
        self.name: str = pod["metadata"]["name"]
        self.namespace: str = pod["metadata"]["namespace"]
        self.component: str = pod["metadata"].get("labels", {}).get(COMPONENT, "")
        self.address = address
        self.faults = faults
        self.container: Container | None = None
        self._api = api
        self._pod = pod
        self._spec: Object = pod["spec"]["containers"][0]
        self._init_specs: list[Object] = (
            pod["spec"].get("initContainers", []) if self.component == "triton" else []
        )
        self._init_statuses: dict[str, Object] = {}
        self._node = node
        self._take_gpus = take_gpus
        self._directory = directory
        self._volume = volume
        self._held = held
        self._variables = variables
        self._restarts = 0
        self._last: Object = {}
        self._container_id = ""
        self._started = ""
        self._scheduled = ""
        self._final = False
        self._written: Object = {}
        self._main: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Lead the pod from Pending to its end; foreign pods are left alone."""
        if not self.component:
            return
        self._main = asyncio.current_task()
        await self._bind()
        setting = await self._prepare()
        for spec in self._init_specs:
            await self._initialise(spec, setting)
        while not self._final:
            ended = await self._run_container(setting)
            if self._final:
                return
            if self._pod["spec"].get("restartPolicy", "Always") != "Always":
                await self._finish(ended)
                return
            self._restarts += 1
            await self._say_restarting(ended)
            await asyncio.sleep(RESTART_SECONDS)

    async def terminate(self) -> None:
        """End the container within its grace period, then remove the pod, as a kubelet does."""
        if self._final:
            return
        await self._end(grace_seconds=GRACE_SECONDS)
        await self._remove()

    async def stop(self) -> None:
        """End the container at once and say nothing."""
        await self._end(grace_seconds=0)

    async def crash(self) -> None:
        """Kill the container alone; what follows is the restart policy's."""
        if self.container:
            await self.container.stop(grace_seconds=0)

    async def evict(self) -> None:
        """Kill the pod for the node's sake."""
        await self._end(grace_seconds=0)
        status = self._status(
            "Failed", state=_terminated(Ended(KILLED), started=self._started, container=self._container_id)
        )
        message = "The node was low on resource: ephemeral-storage."
        target = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "TerminationByKubelet",
            "message": message,
        }
        status["conditions"].append(target)
        await self._write(status | {"reason": "Evicted", "message": message})

    async def vanish(self) -> None:
        """Disappear with the node, by the hand of pod garbage collection."""
        await self._end(grace_seconds=0)
        target = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "DeletionByPodGC",
            "message": "node not found",
        }
        status = self._status("Failed", state={"waiting": {"reason": "Unknown"}})
        status["conditions"].append(target)
        await self._write(status)
        await self._remove()

    @property
    def has_ended(self) -> bool:
        """Whether its containers are gone for good, and what they held is free."""
        return self._written.get("phase") in ("Succeeded", "Failed")

    async def _bind(self) -> None:
        since = _now()
        while True:
            obstacle = await self._obstacle()
            node = None if obstacle else self._node()
            if node:
                obstacle = self._take_gpus()
            if node and not obstacle:
                break
            message = f"0/2 nodes are available: {obstacle or 'no node matches'}"
            unscheduled = {
                "type": "PodScheduled",
                "status": "False",
                "reason": "Unschedulable",
                "message": message,
                "lastTransitionTime": since,
            }
            await self._write({"phase": "Pending", "conditions": [unscheduled]}, only_news=True)
            await asyncio.sleep(PAUSE_SECONDS)
        target = {"apiVersion": "v1", "kind": "Node", "name": node}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": self.name}, "target": target}
        await self._api.send("POST", self._path("binding"), binding)
        self._pod["spec"]["nodeName"] = node
        self._scheduled = _now()

    async def _obstacle(self) -> str:
        """Return why the pod can't be scheduled: its claims, in the scheduler's words."""
        for claim in self._claims().values():
            found = await self._api.send(
                "GET", path_of("PersistentVolumeClaim", namespace=self.namespace, name=claim)
            )
            if found is None:
                return f'persistentvolumeclaim "{claim}" not found'
            if found.get("status", {}).get("phase") != "Bound":
                return "pod has unbound immediate PersistentVolumeClaims"
        return ""

    async def _prepare(self) -> Setting:
        """Return the container's surroundings, once the Secrets that it names are there."""
        while True:
            environment = await environment_of(
                self._spec, self._pod, pod_ip=self.address, secret=self._secret
            )
            if not isinstance(environment, str):
                break
            waiting = {"waiting": {"reason": "CreateContainerConfigError", "message": environment}}
            await self._write(self._status("Pending", state=waiting), only_news=True)
            await asyncio.sleep(PAUSE_SECONDS)
        scratch = self._directory
        scratch.mkdir(parents=True, exist_ok=True)
        claims = self._claims()
        mounts = {
            mount["mountPath"]: self._volume(claims[mount["name"]])
            for mount in self._spec.get("volumeMounts", [])
            if mount["name"] in claims
        }
        mounts |= await self._secrets()
        environment = {**self._variables(), **environment}
        return Setting(pod_ip=self.address, mounts=mounts, scratch=scratch, environment=environment)

    async def _secrets(self) -> dict[str, Path]:
        """Return mount path → directory of the Secrets that the pod mounts; one may be missing."""
        mounts = {mount["name"]: mount["mountPath"] for mount in self._spec.get("volumeMounts", [])}
        found: dict[str, Path] = {}
        for volume in self._pod["spec"].get("volumes", []):
            if "secret" not in volume:
                continue
            secret = await self._secret(volume["secret"]["secretName"])
            directory = self._directory / volume["name"]
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            for key, value in ((secret or {}).get("data") or {}).items():
                (directory / key).write_bytes(base64.b64decode(value))
            found[mounts[volume["name"]]] = directory
        return found

    async def _run_container(self, setting: Setting) -> Ended:
        self._container_id = f"containerd://{uuid.uuid4().hex}"
        self._started = _now()
        running = {"running": {"startedAt": self._started}}
        await self._write(self._status("Running", state=running, ready=False))
        while self._pod["spec"].get("restartPolicy") == "Never" and self._held():  # noqa: ASYNC110
            await asyncio.sleep(PAUSE_SECONDS)
        container = make_container(self.component, self._spec, setting, faults=self.faults)
        await self._start(container)
        watching = asyncio.create_task(self._watch_readiness(container, running))
        try:
            return await container.wait()
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching

    async def _initialise(self, spec: Object, setting: Setting) -> None:
        """Run an init container again and again until it ends well, as a kubelet does."""
        waiting = {"waiting": {"reason": "PodInitializing"}}
        last: Object = {}
        while not self._final:
            environment = {**setting.environment, **self._variables()}
            here = dataclasses.replace(setting, environment=environment)
            container = make_container("", spec, here, faults=self.faults)
            started = _now()
            await self._start(container)
            ended = await container.wait()
            state = _terminated(ended, started=started, container="")
            if not ended.exit_code:
                self._init_statuses[spec["name"]] = {"state": state, "lastState": last}
                return
            last = state
            crashed = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off restarting"}}
            self._init_statuses[spec["name"]] = {"state": crashed, "lastState": last}
            await self._write(self._status("Pending", state=waiting), only_news=True)
            await asyncio.sleep(RESTART_SECONDS)

    async def _start(self, container: Container) -> None:
        """Start a container whole, even when the pod ends meanwhile: then end it again."""
        starting = asyncio.ensure_future(container.start())
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            await starting
            await container.stop(grace_seconds=0)
            raise
        self.container = container

    async def _watch_readiness(self, container: Container, running: Object) -> None:
        before = False
        while True:
            ready = await container.is_ready()
            if ready != before and not self._final:
                await self._write(self._status("Running", state=running, ready=ready))
                before = ready
            await asyncio.sleep(PAUSE_SECONDS if not ready else 5 * PAUSE_SECONDS)

    async def _finish(self, ended: Ended) -> None:
        phase = "Failed" if ended.exit_code else "Succeeded"
        state = _terminated(ended, started=self._started, container=self._container_id)
        self.container = None
        await self._write(self._status(phase, state=state))

    async def _say_restarting(self, ended: Ended) -> None:
        self._last = _terminated(ended, started=self._started, container=self._container_id)
        waiting = {
            "waiting": {"reason": "CrashLoopBackOff", "message": "back-off restarting failed container"}
        }
        await self._write(self._status("Running", state=waiting))

    async def _end(self, *, grace_seconds: float) -> None:
        self._final = True
        if self.container:
            await self.container.stop(grace_seconds=grace_seconds)
        if self._main:
            self._main.cancel()
            await asyncio.gather(self._main, return_exceptions=True)

    async def _remove(self) -> None:
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": self._pod["metadata"]["uid"]}}
        await self._api.send("DELETE", self._path(), options)

    async def _secret(self, name: str) -> Object | None:
        return await self._api.send("GET", path_of("Secret", namespace=self.namespace, name=name))

    def _claims(self) -> dict[str, str]:
        volumes = self._pod["spec"].get("volumes", [])
        return {
            volume["name"]: volume["persistentVolumeClaim"]["claimName"]
            for volume in volumes
            if "persistentVolumeClaim" in volume
        }

    def _status(self, phase: str, *, state: Object, ready: bool = False) -> Object:
        now = _now()
        initialised = all("terminated" in each["state"] for each in self._init_statuses.values())
        flags = {"PodScheduled": True, "Initialized": initialised, "ContainersReady": ready, "Ready": ready}
        return {
            "phase": phase,
            "podIP": self.address,
            "podIPs": [{"ip": self.address}],
            "startTime": self._pod["metadata"]["creationTimestamp"],
            "conditions": [
                {
                    "type": name,
                    "status": "True" if value else "False",
                    "lastTransitionTime": self._scheduled if name == "PodScheduled" else now,
                }
                for name, value in flags.items()
            ],
            "initContainerStatuses": [
                {"name": name, "image": "", "imageID": "", "ready": False, "restartCount": 0, **status}
                for name, status in self._init_statuses.items()
            ],
            "containerStatuses": [
                {
                    "name": self._spec["name"],
                    "image": self._spec["image"],
                    "imageID": f"double://{self._spec['image']}",
                    "containerID": self._container_id,
                    "ready": ready,
                    "started": "running" in state,
                    "restartCount": self._restarts,
                    "state": state,
                    "lastState": self._last,
                }
            ],
        }

    async def _write(self, status: Object, *, only_news: bool = False) -> None:
        if only_news and status == self._written:
            return
        self._written = status
        await self._api.send("PATCH", self._path("status"), {"status": status}, content="merge-patch+json")

    def _path(self, subresource: str = "") -> str:
        return path_of("Pod", namespace=self.namespace, name=self.name, subresource=subresource)


def _terminated(ended: Ended, *, started: str, container: str) -> Object:
    state = {
        "exitCode": ended.exit_code,
        "reason": "Error" if ended.exit_code else "Completed",
        "startedAt": started or _now(),
        "finishedAt": _now(),
        "containerID": container,
    }
    return {"terminated": state | ({"message": ended.message} if ended.message else {})}


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
