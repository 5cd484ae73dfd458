"""One command at a time changes the cluster."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from localcluster.progress import say

NAME = b"\0triton-operator-localcluster"
"""An abstract socket: no file is left, the kernel frees it with its process, and it is per network namespace
as the bridge is."""


@contextmanager
def exclusive() -> Iterator[None]:
    """Hold the lock of this host's cluster; wait for whoever holds it."""
    with socket.socket(socket.AF_UNIX) as held:
        waiting = False
        while not _bound(held):
            if not waiting:
                say("Another localcluster command is at work; waiting for it.")
            waiting = True
            time.sleep(0.2)
        yield


def _bound(candidate: socket.socket) -> bool:
    try:
        candidate.bind(NAME)
    except OSError:
        return False
    return True
