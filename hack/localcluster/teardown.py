"""`down`: leave the host as it was, whatever state the cluster is in."""

import shutil
import time
from contextlib import suppress

from localcluster import cgroups, firewall, host, mounts, network, processes
from localcluster.errors import ClusterError
from localcluster.layout import Layout

REMOVAL_SECONDS = 5.0


def tear_down(layout: Layout, *, keep_logs: bool = False) -> bool:
    """Remove everything that a cluster made; tell whether there was anything."""
    if not _anything_left(layout):
        return False
    # Containers go together with the shims that would report and the kubelets that would restart them.
    processes.end_all(lambda: {*processes.marked(), *cgroups.members()})
    mounts.unmount_below(layout.state)
    cgroups.remove()
    network.remove()
    firewall.remove()
    host.restore(layout)
    if layout.marker.exists():
        _remove_state(layout, keep_logs=keep_logs)
    return True


def _anything_left(layout: Layout) -> bool:
    return layout.marker.exists() or network.exists() or cgroups.exist() or bool(processes.marked())


def _remove_state(layout: Layout, *, keep_logs: bool) -> None:
    if mounts.mounts_below(layout.state):
        raise ClusterError(f"Something is still mounted below {layout.state}.", "Run `down` again.")
    kept = {"logs.previous", layout.marker.name} if keep_logs else {layout.marker.name}
    if keep_logs and layout.logs.is_dir():
        shutil.rmtree(layout.state / "logs.previous", ignore_errors=True)
        layout.logs.rename(layout.state / "logs.previous")
    for entry in layout.state.iterdir():
        if entry.name not in kept:
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    if not keep_logs:
        # The marker goes last: an interrupted removal is continued by the next one.
        layout.marker.unlink()
        _remove_empty(layout)


def _remove_empty(layout: Layout) -> None:
    deadline = time.monotonic() + REMOVAL_SECONDS
    while layout.state.exists() and time.monotonic() < deadline:
        with suppress(OSError):
            layout.state.rmdir()
            return
        time.sleep(0.05)
