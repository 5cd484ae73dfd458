"""Triton's pods as a person works with them: tritonclient, and the control key from its Secret."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from tests.e2e.cluster import kubectl
from tests.e2e.stage import GRPC, RELEASE
from tritonclient.grpc import InferenceServerClient

from triton_operator.clients.triton import KEY_HEADER, config_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from collections.abc import Set as AbstractSet

    from tests.e2e.stage import Stage


@dataclasses.dataclass(frozen=True)
class Pods:
    """Connections to pods."""

    clients: dict[str, InferenceServerClient]
    headers: dict[str, str]
    threads: ThreadPoolExecutor
    """One for each pod, kept: a switch is watched by asking often."""

    def load(self, model: str, config: str, versions: AbstractSet[int]) -> None:
        """Have every pod run a model with these versions of it, all pods at once."""
        override = config_json(config, versions=versions)
        self._on_all(lambda client: client.load_model(model, headers=self.headers, config=override))

    def have(self, model: str, version: int) -> list[bool]:
        """Tell for each pod whether a version answers."""
        return self._on_all(lambda client: client.is_model_ready(model, str(version)))

    def configurations(self, model: str) -> list[Any]:
        """Return the configuration that each pod runs a model with."""
        return self._on_all(lambda client: client.get_model_config(model, headers=self.headers).config)

    def held(self) -> list[tuple[str, str, str]]:
        """Return what any pod has loaded, or is about to load or unload: pod, model, version."""
        return [
            (pod, row.name, row.version)
            for pod, client in self.clients.items()
            for row in client.get_model_repository_index(headers=self.headers).models
            if row.state in ("LOADING", "READY", "UNLOADING")
        ]

    def _on_all(self, call: Callable[[InferenceServerClient], Any]) -> list[Any]:
        return list(self.threads.map(call, self.clients.values()))


@contextlib.contextmanager
def connected(stage: Stage) -> Iterator[Pods]:
    """Connect to every Triton pod while the context is open."""
    pods = stage.pods()
    with contextlib.ExitStack() as stack:
        clients = {
            pod["metadata"]["name"]: stack.enter_context(
                InferenceServerClient(f"{pod['status']['podIP']}:{GRPC}")
            )
            for pod in pods
        }
        threads = stack.enter_context(ThreadPoolExecutor(len(pods)))
        yield Pods(clients=clients, headers={KEY_HEADER: _control_key(stage, pods[0])}, threads=threads)


def config_in_tree(stage: Stage, model: str, *, server: str = "default") -> str:
    """Return the config.pbtxt that a server's tree has of a model."""
    path = f"/repository/servers/{server}/{RELEASE}/{model}/config.pbtxt"
    keeper = ("exec", "deployment/keeper-default", "--", "cat", path)
    return kubectl("--namespace", stage.namespace, *keeper).stdout


def _control_key(stage: Stage, pod: dict[str, Any]) -> str:
    sources = [entry.get("valueFrom", {}) for entry in pod["spec"]["containers"][0]["env"]]
    (reference,) = (source["secretKeyRef"] for source in sources if "secretKeyRef" in source)
    secret = stage.kube.get("Secret", reference["name"])
    return base64.b64decode(secret["data"][reference["key"]]).decode()
