"""`helm uninstall` and the deletion of namespaces leave nothing behind but the CRDs."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING

import pytest
from tests.builders import a_model
from tests.e2e.audit import AuditLog
from tests.e2e.cluster import kubectl, run
from tests.e2e.installation import Installation
from tests.e2e.stage import RELEASE, Stage
from tests.integration.eventually import eventually

from demo import installation as demo

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.cluster import Cluster

PASSING = frozenset({"componentstatuses", "endpoints", "events", "events.events.k8s.io", "nodes"})
"""Kinds that come and go by themselves, or are no objects."""


@pytest.fixture
def only_one(installation: Installation) -> Iterator[None]:
    """Stop the operator of all namespaces, so that two don't care for one namespace."""
    with installation.stopped():
        yield


def objects_of_the_cluster() -> set[str]:
    """Return every object outside a namespace, but for those that come and go by themselves."""
    listed = kubectl("api-resources", "--namespaced=false", "--verbs=list", "--output=name").stdout.split()
    kinds = sorted(set(listed) - PASSING)
    return set(kubectl("get", ",".join(kinds), "--output=name").stdout.split())


def values(cluster: Cluster, watched: str) -> str:
    """Return values of a release that works in one namespace, with a repository and a server in it."""
    repository = {"storage": {"size": "64Mi"}, "engineRetention": "1h"}
    shutdown = {"leaveSeconds": 0, "exitTimeoutSeconds": 1}
    server = {"image": cluster.images["triton-cpu"], "release": RELEASE, "shutdown": shutdown}
    return json.dumps(
        {
            **demo.chart_values(cluster.images),
            "watchNamespaces": [watched],
            "modelRepositories": [{"name": "default", "namespace": watched, "spec": repository}],
            "tritonServers": [{"name": "default", "namespace": watched, "spec": server}],
        }
    )


@pytest.fixture
def second(only_one: None, cluster: Cluster, shared_uses: dict[str, AuditLog]) -> Iterator[Stage]:
    """A second release in namespaces of its own."""
    suffix = secrets.token_hex(3)
    home, watched = f"e2e-home-{suffix}", f"e2e-watched-{suffix}"
    since = AuditLog.from_now(cluster.audit_log) if cluster.audit_log else None
    kubectl("create", "namespace", watched)
    options = ("--namespace", home, "--create-namespace", "--wait", "--timeout=120s", "--values=-")
    chart = str(demo.CHART)
    run("helm", "upgrade", "--install", "second", chart, *options, stdin=values(cluster, watched))
    installed = Installation.of(cluster, release="second", namespace=home, since=since)
    if since is not None:
        shared_uses[installed.user] = since
    stage = Stage(cluster=cluster, installation=installed, kube=cluster.kube(watched))
    yield stage
    run("helm", "uninstall", "second", "--namespace", home, "--ignore-not-found", "--wait")
    kubectl("delete", "namespace", watched, home, "--ignore-not-found", "--timeout=60s")


@pytest.mark.last(2)
def test_nothing_is_left_but_the_crds(before: set[str], second: Stage) -> None:
    second.add_sources()
    second.apply(a_model("main").with_version(1, second.put_model("main.onnx", 2.0)))
    second.wait_ready("InferenceModel", "main")
    assert set(second.served_factors("main").values()) == {2.0}
    home = second.installation.namespace
    assert refused(second.installation) == []
    run("helm", "uninstall", "second", "--namespace", home, "--wait")
    left_in_home(second, home)
    kubectl("delete", "namespace", second.namespace, home, "--timeout=60s")

    def nothing_left() -> None:
        assert objects_of_the_cluster() - before == set()

    eventually(nothing_left, within=60)


def refused(installation: Installation) -> list[str]:
    """Return what a release that works in one namespace asked for and had no right to."""
    if installation.since is None:
        return []
    return [str(each) for each in installation.since.requests(installation.user) if each.refused]


def left_in_home(stage: Stage, home: str) -> None:
    """Wait until a release's own namespace holds nothing of it: Lease and master key go by their owner."""
    kube = stage.cluster.kube(home)

    def empty() -> None:
        for kind in ("Deployment", "Service", "Secret", "Lease", "Role", "RoleBinding", "Pod"):
            assert [each["metadata"]["name"] for each in kube.list(kind)] == [], kind

    eventually(empty, within=60)


@pytest.fixture
def before(only_one: None) -> set[str]:
    """What the cluster held before the second release."""
    return objects_of_the_cluster()
