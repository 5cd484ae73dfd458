"""The operator as a process."""

from __future__ import annotations

import contextlib
import socket
import sys
import urllib.request
from typing import TYPE_CHECKING

from tests.integration.controllers import make_account, writes_of
from tests.integration.eventually import eventually
from tests.integration.processes import Program

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.integration.apiserver import ApiServer
    from tests.integration.controllers import Account

OPERATOR_NAMESPACE = "triton-operator-system"
FLEET_SECONDS = 2
RESYNC_SECONDS = 10
RETRY_SECONDS = 3


class OperatorProcess:
    """Starts, kills and restarts the operator; it always runs under the same account and identity."""

    def __init__(
        self,
        server: ApiServer,
        directory: Path,
        *,
        account: Account | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> None:
        self._server = server
        self._directory = directory
        self._account = account or make_account(
            server, "triton-operator", namespace=OPERATOR_NAMESPACE, directory=directory
        )
        self._settings = settings or {}
        self._program: Program | None = None
        self._port = _free_port()

    @property
    def log(self) -> Path:
        return self._directory / "operator.log"

    @property
    def alive(self) -> bool:
        return bool(self._program and self._program.alive)

    def start(self) -> None:
        """Start it and wait until it is ready; the log goes on in the same file."""
        self._program = Program(self._command(), log=self.log, environment=self._environment())
        eventually(self._check_ready, within=30, because=self.tail)

    def kill(self) -> None:
        """End it as a crash does."""
        if self._program:
            self._program.kill()

    def stop(self) -> None:
        """Ask it to end."""
        if self._program:
            self._program.stop()

    def ensure_running(self) -> None:
        """Start it again if a test left it ended."""
        if not self.alive:
            self.start()

    def writes(self, namespace: str = "") -> list[tuple[str, str]]:
        """Return what it wrote so far, of all namespaces or one, oldest first."""
        writes = writes_of(self._server, self._account.user)
        return [write for write in writes if write[1].startswith(f"{namespace}/") or not namespace]

    def tail(self) -> str:
        """Return the end of its log, without what gRPC says about itself."""
        lines = self.log.read_text(errors="replace").splitlines(keepends=True)
        return "".join(line for line in lines if '"logger": "grpc' not in line)[-4000:]

    def _command(self) -> list[str]:
        return [sys.executable, "-m", "triton_operator", "run", f"--kubeconfig={self._account.kubeconfig}"]

    def _environment(self) -> dict[str, str]:
        settings = {
            "namespace": OPERATOR_NAMESPACE,
            "identity": "operator-0",
            "engine_builder_image": "triton-operator/engine-builder:test",
            "listen": f"127.0.0.1:{self._port}",
            "fleet_seconds": FLEET_SECONDS,
            "resync_seconds": RESYNC_SECONDS,
            "retry_seconds": RETRY_SECONDS,
            "log_level": "DEBUG",
            **self._settings,
        }
        return {f"TRITON_OPERATOR_{name.upper()}": str(value) for name, value in settings.items()}

    def _check_ready(self) -> None:
        assert self._program is not None
        if not self._program.alive:
            raise RuntimeError(f"the operator ended:\n{self.tail()}")
        ready = False
        with contextlib.suppress(OSError):
            url = f"http://127.0.0.1:{self._port}/readyz"
            with urllib.request.urlopen(url, timeout=2) as answer:
                ready = answer.status == 200
        assert ready, "the operator is not ready"


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
