"""What all runs share (API server, controllers, nodes, an account), and the operator of one run."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from typing import TYPE_CHECKING

from tests.integration.apiserver import ApiServer, Binaries, running_api_server
from tests.integration.controllers import Account, controller_manager, make_account
from tests.integration.kube import Kube
from tests.integration.kubelet_double import KubeletDouble, kubelet_double
from tests.integration.operator.operator_process import OPERATOR_NAMESPACE, OperatorProcess
from tests.integration.processes import ROOT, Program

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

FLEET_SECONDS = 0.5
RESYNC_SECONDS = 5
LOOK_SECONDS = 0.05


@dataclasses.dataclass(frozen=True)
class Ground:
    """A cluster without kubelets, and the account that every operator uses."""

    server: ApiServer
    kubelet: KubeletDouble
    account: Account


@contextlib.contextmanager
def ground(directory: Path) -> Iterator[Ground]:
    """Start everything that runs share, for as long as the block lasts."""
    for name in ("api-server", "controllers"):
        (directory / name).mkdir()
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(running_api_server(directory / "api-server", Binaries.build(ROOT)))
        _install_crds(server)
        stack.enter_context(controller_manager(server, directory / "controllers"))
        kubelet = stack.enter_context(kubelet_double(server, directory / "kubelet"))
        make_namespace(server, OPERATOR_NAMESPACE)
        account = make_account(server, "triton-operator", namespace=OPERATOR_NAMESPACE, directory=directory)
        yield Ground(server=server, kubelet=kubelet, account=account)


def make_namespace(server: ApiServer, name: str) -> None:
    """Create a namespace."""
    Kube.admin(server).create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})


def _install_crds(server: ApiServer) -> None:
    crds = str(ROOT / "crds")
    for command in (("apply", "--server-side"), ("wait", "--for=condition=Established", "--timeout=30s")):
        done = server.kubectl(*command, "-f", crds)
        if done.returncode:
            raise RuntimeError(f"kubectl {' '.join(command)}: {done.stderr}")


class RestartedOperator(OperatorProcess):
    """The operator of one namespace, where its Lease and master key lie too; started again when it ends."""

    def __init__(
        self, ground: Ground, directory: Path, *, namespace: str, variables: Mapping[str, str]
    ) -> None:
        settings = {
            "namespace": namespace,
            "watch_namespaces": namespace,
            "fleet_seconds": FLEET_SECONDS,
            "resync_seconds": RESYNC_SECONDS,
            "log_level": "INFO",
        }
        super().__init__(ground.server, directory, account=ground.account, settings=settings)
        self.deaths: list[int] = []
        self._variables = variables
        self._ending = threading.Event()
        self._watching = threading.Thread(target=self._watch, name=f"operator {namespace}", daemon=True)

    def start(self) -> None:
        """Start it, and again whenever it ends."""
        self._watching.start()

    def stop(self) -> None:
        """End it for good."""
        self._ending.set()
        self._watching.join()

    def _watch(self) -> None:
        """Keep it running; in one thread, because the process ends with the thread that started it."""
        self._spawn()
        while not self._ending.wait(LOOK_SECONDS):
            if self._program is not None and not self._program.alive:
                self.deaths.append(self._program.process.returncode)
                self._spawn()
        self.kill()

    def _spawn(self) -> None:
        self._program = Program(
            self._command(), log=self.log, environment={**self._environment(), **self._variables}
        )
