"""Run the keeper as a process: HTTP first, then the lock, until SIGTERM."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING

from engine_builder.api import KeeperServer
from engine_builder.log import log

if TYPE_CHECKING:
    from engine_builder.keeper import Keeper


def serve(keeper: Keeper, *, host: str, port: int, key: bytes) -> None:
    """Serve until told to stop; returns within the grace period of a pod."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with KeeperServer((host, port), keeper=keeper, key=key) as server:
        log("listening", host=host, port=server.server_address[1])
        for work in (server.serve_forever, keeper.start):
            threading.Thread(target=work, daemon=True).start()
        stop.wait()
        log("stopping")
        server.shutdown()
        keeper.stop()
