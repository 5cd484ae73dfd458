"""Containers without a kubelet: a container's command as a local program, or a Triton double in its place."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import os
import re
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import aiohttp
from tests.integration.triton_double import TritonDouble
from tests.integration.triton_repository import CrashError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from tests.integration.triton_repository import Faults

TERMINATION_LOG = "/dev/termination-log"
TERMINATION_BYTES = 4096
KILLED = 137
CRASHED = 139
LEAVE_SECONDS = 1.0
"""Longest sleep before a container is ended: nobody here learns late that a pod leaves its Services."""
COMMANDS: Mapping[str, list[str]] = {
    "keeper": [sys.executable, "-m", "engine_builder"],
    "prepare": [sys.executable, "-m", "engine_builder"],
    "resolve": [sys.executable, "-m", "engine_builder"],
    "samples": [sys.executable, "-m", "engine_builder"],
    "convert": [sys.executable, "-m", "engine_builder"],
    "compile": [sys.executable, "-m", "engine_builder"],
}
"""What the images' entry points run, by the component in the pod's labels; others run their command."""

Object = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a container ended."""

    exit_code: int
    message: str = ""


class Container(Protocol):
    """A running container."""

    async def start(self) -> None:
        """Start it; returns when its process runs."""

    async def is_ready(self) -> bool:
        """Answer as its readiness probe would."""

    async def wait(self) -> Ended:
        """Wait until it ends by itself or is ended."""

    async def stop(self, *, grace_seconds: float) -> None:
        """End it with SIGTERM, and by force when the grace period is over."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a container finds around it: address, claims' directories, environment."""

    pod_ip: str
    mounts: Mapping[str, Path]
    """Mount path → directory on this host."""
    scratch: Path
    """A directory of the container's own: log, temporary files, termination message."""
    environment: Mapping[str, str]

    def localised(self, argument: str) -> str:
        """Return an argument as it must be on this host: paths, address and variables put in."""
        for name, value in self.environment.items():
            argument = argument.replace(f"$({name})", value)
        for mount, directory in self.mounts.items():
            argument = re.sub(rf"(?<![\w/.:-]){re.escape(mount)}(?=/|$)", str(directory), argument)
        argument = argument.replace(TERMINATION_LOG, str(self.scratch / "termination-log"))
        return argument.replace("0.0.0.0:", f"{self.pod_ip}:")


class ProgramContainer:
    """A container whose command runs for real."""

    def __init__(self, component: str, spec: Object, setting: Setting) -> None:
        arguments = [setting.localised(each) for each in spec.get("args", [])]
        self.command = [*COMMANDS.get(component, spec.get("command", [])), *arguments]
        self._setting = setting
        self._readiness = spec.get("readinessProbe", {}).get("httpGet")
        self._ports = {port.get("name", ""): port["containerPort"] for port in spec.get("ports", [])}
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        log = (self._setting.scratch / "log").open("ab")
        log.write(f"$ {' '.join(self.command)}\n".encode())
        log.flush()
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),  # the code of this tree, as the tests themselves
            "TMPDIR": str(self._setting.scratch),
            **self._setting.environment,
        }
        self._process = await asyncio.create_subprocess_exec(
            *self.command, stdout=log, stderr=log, env=environment, start_new_session=True
        )
        log.close()

    async def is_ready(self) -> bool:
        if self._readiness is None:
            return True
        port = self._ports.get(self._readiness["port"], self._readiness["port"])
        url = f"http://{self._setting.pod_ip}:{port}{self._readiness['path']}"
        timeout = aiohttp.ClientTimeout(total=1)
        try:
            async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as answer:
                return answer.ok
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def wait(self) -> Ended:
        process = self._running()
        code = await process.wait()
        report = self._setting.scratch / "termination-log"
        text = report.read_text(errors="replace")[:TERMINATION_BYTES] if report.exists() else ""
        return Ended(exit_code=code if code >= 0 else 128 - code, message=text)

    async def stop(self, *, grace_seconds: float) -> None:
        process = self._process
        if process is None:
            return
        if process.returncode is None and grace_seconds:
            process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), grace_seconds)
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()

    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise RuntimeError("the container was not started")
        return self._process


class TritonContainer:
    """A container with a Triton double in place of tritonserver; its faults outlive it."""

    def __init__(self, spec: Object, setting: Setting, faults: Faults) -> None:
        flags = [setting.localised(each).partition("=") for each in spec.get("args", [])]
        values = {flag: value for flag, _, value in flags}
        control = values.get("--grpc-restricted-protocol", "").partition(":")[2].partition("=")
        loop = asyncio.get_running_loop()
        self.double = TritonDouble(
            Path(values["--model-repository"]),
            address=f"{setting.pod_ip}:8001",
            identity=values.get("--id", "triton"),
            control=(control[0], control[2]) if control[0] else None,
            faults=faults,
            crashed=lambda: loop.call_soon_threadsafe(self._end, CRASHED),
        )
        leave = spec.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        self._leave_seconds = min(leave, LEAVE_SECONDS)
        self._ended = asyncio.Event()
        self._code = 0

    async def start(self) -> None:
        try:
            await asyncio.to_thread(self.double.start)
        except CrashError:
            self._end(CRASHED)

    async def is_ready(self) -> bool:
        return not self.double.faults.hang and not self._ended.is_set()

    async def wait(self) -> Ended:
        await self._ended.wait()
        return Ended(exit_code=self._code)

    async def stop(self, *, grace_seconds: float) -> None:
        if grace_seconds:
            await asyncio.sleep(self._leave_seconds)  # the preStop hook
        await asyncio.to_thread(self.double.stop, grace_seconds=grace_seconds)
        self._end(0 if grace_seconds else KILLED)

    def _end(self, code: int) -> None:
        if not self._ended.is_set():
            self._code = code
            self._ended.set()


def make_container(component: str, spec: Object, setting: Setting, *, faults: Faults) -> Container:
    """Return the container that a pod of this component runs."""
    if component == "triton":
        return TritonContainer(spec, setting, faults)
    return ProgramContainer(component, spec, setting)


async def environment_of(
    spec: Object, pod: Object, *, pod_ip: str, secret: Callable[[str], Awaitable[Object | None]]
) -> dict[str, str] | str:
    """Return a container's variables, or the message of why it can't be created yet."""
    values: dict[str, str] = {}
    fields = {
        "metadata.name": pod["metadata"]["name"],
        "metadata.namespace": pod["metadata"]["namespace"],
        "metadata.uid": pod["metadata"]["uid"],
        "status.podIP": pod_ip,
        "spec.nodeName": pod["spec"].get("nodeName", ""),
    }
    for variable in spec.get("env", []):
        source = variable.get("valueFrom", {})
        if "fieldRef" in source:
            values[variable["name"]] = fields[source["fieldRef"]["fieldPath"]]
        elif "secretKeyRef" in source:
            name, key = source["secretKeyRef"]["name"], source["secretKeyRef"]["key"]
            found = await secret(name)
            if found is None:
                return f'secret "{name}" not found'
            if key not in found.get("data", {}):
                return f"couldn't find key {key} in Secret {pod['metadata']['namespace']}/{name}"
            values[variable["name"]] = base64.b64decode(found["data"][key]).decode()
        else:
            values[variable["name"]] = variable.get("value", "")
    return values
