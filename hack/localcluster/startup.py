"""`up`: clean what is left, start every part, wait until the cluster works."""

import hashlib
import json
import time
from collections.abc import Callable
from functools import partial

from localcluster import (
    builds,
    certificates,
    cgroups,
    configuration,
    dns,
    firewall,
    health,
    host,
    images,
    network,
    objects,
    packages,
    preflight,
    users,
)
from localcluster.api import Api
from localcluster.errors import ClusterError
from localcluster.layout import Layout
from localcluster.nodes import NODES
from localcluster.parts import Part, all_parts, containerd_of, kubelet_of
from localcluster.processes import recorded, start
from localcluster.progress import say, step
from localcluster.teardown import tear_down

WAIT_SECONDS = 120.0
LOG_LINES = 6
LAST_SIGN = "/api/v1/namespaces/default/serviceaccounts/default"
"""Made by the controller manager; until it is there no pod can be created."""


def bring_up(layout: Layout) -> None:
    """Start the cluster unless the same one runs healthily."""
    preflight.check_state_folder(layout)
    preflight.check_owner(layout)
    if _runs_as_configured(layout):
        say("The cluster is up already.")
        return
    packages.install_missing()
    builds.build_missing(layout, builds.CLUSTER_NAMES)
    with step("clean up what an earlier run left"):
        tear_down(layout, keep_logs=True)
        preflight.check_host()
    with step("prepare host, certificates, configuration"):
        _prepare(layout)
    _start_all(layout)
    layout.cluster_record.write_text(json.dumps({"configuration": configuration_digest(layout)}))


def configuration_digest(layout: Layout) -> str:
    """Return a digest of everything that decides what runs, wherever clone, cache and Python lie."""
    digest = hashlib.sha256(builds.modules_digest(layout.source).encode())
    for part in all_parts(layout).values():
        if part.name != "provisioner":
            digest.update(" ".join(part.argv).replace(str(layout.cache), "").encode())
    for path, text in configuration.render_all(layout).items():
        digest.update(f"{path}\n{text}\n".encode())
    digest.update(json.dumps(objects.OBJECTS).encode())
    for module in ("provisioner", "firewall", "network", "cgroups"):
        digest.update((layout.source / f"{module}.py").read_bytes())
    return digest.hexdigest()


def _runs_as_configured(layout: Layout) -> bool:
    try:
        record = json.loads(layout.cluster_record.read_text())
    except (OSError, ValueError):
        return False
    if record.get("configuration") != configuration_digest(layout):
        say("The cluster runs another version of this configuration; starting afresh.")
        return False
    rows = health.conditions(layout)
    if not all(row.healthy for row in rows):
        say("The cluster is not healthy; starting afresh:")
        say(health.table([row for row in rows if not row.healthy]))
        return False
    return True


def _prepare(layout: Layout) -> None:
    layout.state.mkdir(parents=True, exist_ok=True)
    layout.marker.touch()
    for folder in (layout.logs, layout.config, layout.volumes):
        folder.mkdir(exist_ok=True)
    host.remember(layout)
    host.enable_forwarding()
    certificates.issue_all(layout)
    users.write_all(layout)
    configuration.write_all(layout)
    images.write_pause_archive(layout)
    cgroups.create()
    network.create()
    firewall.install()


def _start_all(layout: Layout) -> None:
    parts = all_parts(layout)
    with step("etcd, API server, containerd"):
        for name in ("etcd", *(containerd_of(node) for node in NODES), "kube-apiserver"):
            start(layout, name, parts[name].argv)
        for node in NODES:
            _await_part(layout, parts[containerd_of(node)])
        images.load(layout, [layout.state / "pause.tar"])
        _await_part(layout, parts["kube-apiserver"])
    api = Api.from_kubeconfig(layout.kubeconfig)
    with step("nodes, controllers, DNS"):
        objects.apply_all(api)
        for part in parts.values():
            if recorded(layout, part.name) is None:
                start(layout, part.name, part.argv)
        _await_cluster(layout, api, parts)


def _await_cluster(layout: Layout, api: Api, parts: dict[str, Part]) -> None:
    for step_of_node, what in ((objects.give_gpus, "register"), (objects.node_is_ready, "be Ready")):
        for node in NODES:
            kubelet = parts[kubelet_of(node)]
            _await(layout, kubelet, f"{node.name} to {what}", partial(step_of_node, api, node))
    for part in parts.values():
        _await_part(layout, part)
    _await(layout, parts["coredns"], "DNS to answer", dns.answers)
    controllers = parts["kube-controller-manager"]
    _await(layout, controllers, "service accounts", partial(objects.exists, api, LAST_SIGN))


def _await_part(layout: Layout, part: Part) -> None:
    _await(layout, part, f"{part.name} to be healthy", lambda: health.answers(layout, part.health))


def _await(layout: Layout, part: Part, what: str, holds: Callable[[], bool]) -> None:
    """Wait for a condition that a part is to bring about; give up when that part ends."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds():
        if recorded(layout, part.name) is None:
            raise _failure(layout, part, f"{part.name} ended")
        if time.monotonic() > deadline:
            raise _failure(layout, part, f"Waited {WAIT_SECONDS:.0f} s for {what}")
        time.sleep(0.1)


def _failure(layout: Layout, part: Part, what: str) -> ClusterError:
    log = layout.log_of(part.name)
    tail = log.read_text(errors="replace").splitlines()[-LOG_LINES:] if log.exists() else []
    text = "\n  ".join([f"{what}. The end of its log:", *(line[:300] for line in tail)])
    return ClusterError(text, f"Read {log}; `up` starts afresh, `down` cleans up.")
