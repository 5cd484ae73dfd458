"""What only whoever owns the cluster's host can do: kill a container, give an image a second name."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localcluster.layout import Layout
from localcluster.nodes import NODES

if TYPE_CHECKING:
    from collections.abc import Iterator

TRITON = "tritonserver"


def kill_triton(pod: dict[str, Any]) -> None:
    """Kill a pod's tritonserver, so that its container ends without a word."""
    (status,) = pod["status"]["containerStatuses"]
    container = status["containerID"].rpartition("/")[2]
    (process,) = _processes(container)
    os.kill(process, signal.SIGKILL)


def _processes(container: str) -> Iterator[int]:
    for folder in Path("/proc").iterdir():
        try:
            if (
                container in (folder / "cgroup").read_text()
                and (folder / "comm").read_text().strip() == TRITON
            ):
                yield int(folder.name)
        except (OSError, ValueError):
            continue  # not a process, or one that has ended


def second_name(image: str) -> str:
    """Give an image another tag on every node, and return the new reference."""
    other = f"{image}-again"
    layout = Layout.from_environment()
    for node in NODES:
        client = ("ctr", "--address", str(node.containerd_socket(layout)), "--namespace", "k8s.io")
        subprocess.run((*client, "images", "tag", "--force", image, other), check=True, capture_output=True)
    return other
