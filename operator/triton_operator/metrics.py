"""Prometheus metrics; the names are documented by their help texts, and kept once released."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

if TYPE_CHECKING:
    from collections.abc import Callable

    from triton_operator.clients.objects import Kind

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_LONG_SECONDS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600)


class Metrics:
    """All metrics of the operator, in a registry of their own.

    It is the queue's observer and the Kubernetes client's write hook; builds, loads, trees and
    checks are noted by the controllers that do them.
    """

    def __init__(self, *, version: str = "") -> None:
        """Register everything."""
        r = self.registry = CollectorRegistry()
        ProcessCollector(registry=r)
        PlatformCollector(registry=r)
        GCCollector(registry=r)
        build = Info("triton_operator_build", "Version of the operator.", registry=r)
        build.info({"version": version})
        self._reconciles = Counter(
            "triton_operator_reconciles", "Reconciles ended, by outcome.", ("kind", "outcome"), registry=r
        )
        self._reconcile_seconds = Histogram(
            "triton_operator_reconcile_seconds",
            "Duration of a reconcile.",
            ("kind",),
            buckets=_SECONDS,
            registry=r,
        )
        self._depth = Gauge("triton_operator_queue_depth", "Keys that wait for a worker.", registry=r)
        self._running = Gauge("triton_operator_queue_running", "Keys being worked on.", registry=r)
        self._waited = Histogram(
            "triton_operator_queue_wait_seconds",
            "Time that a key waited for a worker.",
            ("kind",),
            buckets=_SECONDS,
            registry=r,
        )
        self._retries = Counter(
            "triton_operator_queue_retries", "Keys put back after a failure.", ("kind",), registry=r
        )
        self._api_writes = Counter(
            "triton_operator_api_writes",
            "Writes that the API server took, by verb and kind.",
            ("verb", "kind"),
            registry=r,
        )
        self._builds = Counter(
            "triton_operator_builds",
            "Build Jobs ended, by result: Succeeded or the reason of the failure.",
            ("backend", "result"),
            registry=r,
        )
        self._build_seconds = Histogram(
            "triton_operator_build_seconds",
            "Duration of a build Job, from its creation to its end.",
            ("backend",),
            buckets=_LONG_SECONDS,
            registry=r,
        )
        self._gpu_seconds = Counter(
            "triton_operator_build_gpu_seconds",
            "GPU seconds that compile Jobs held: how long a pod had its GPUs, times their number.",
            ("product", "result"),
            registry=r,
        )
        self._compiler_seconds = Counter(
            "triton_operator_build_compiler_seconds",
            "What the compiler itself took of these GPU seconds.",
            ("product", "result"),
            registry=r,
        )
        self._loads = Counter(
            "triton_operator_loads",
            "Loads and unloads on Triton pods, by result: done, refused or unreachable.",
            ("operation", "result"),
            registry=r,
        )
        self._load_seconds = Histogram(
            "triton_operator_load_seconds",
            "Duration of a load or unload on one Triton pod.",
            ("operation",),
            buckets=(*_SECONDS, 120, 300),
            registry=r,
        )
        self._tree_writes = Counter(
            "triton_operator_tree_writes", "Trees written, by result.", ("result",), registry=r
        )
        self._checks = Counter(
            "triton_operator_checks", "Verdicts on versions, by reason.", ("result",), registry=r
        )
        self._drifts = Counter(
            "triton_operator_drifts", "Pods found to serve something else than their tree says.", registry=r
        )
        self._leader = Gauge("triton_operator_leader", "1 while this process holds the lease.", registry=r)

    def render(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)

    def watch_queue(self, *, depth: Callable[[], float], running: Callable[[], float]) -> None:
        """Read the queue's length and its running keys whenever metrics are asked for."""
        self._depth.set_function(depth)
        self._running.set_function(running)

    def queue_waited(self, kind: str, seconds: float) -> None:
        """Note how long a key waited for a worker."""
        self._waited.labels(kind).observe(seconds)

    def reconciled(self, kind: str, outcome: str, seconds: float) -> None:
        """Note the end of a reconcile."""
        self._reconciles.labels(kind, outcome).inc()
        self._reconcile_seconds.labels(kind).observe(seconds)

    def retried(self, kind: str) -> None:
        """Note that a key will be tried again after a failure."""
        self._retries.labels(kind).inc()

    def api_write(self, verb: str, kind: Kind) -> None:
        """Note a write that the API server took; made to be `Kube`'s `on_write`."""
        self._api_writes.labels(verb, kind.kind).inc()

    def built(self, backend: str, result: str, seconds: float) -> None:
        """Note the end of a build Job."""
        self._builds.labels(backend, result).inc()
        self._build_seconds.labels(backend).observe(seconds)

    def held(self, product: str, result: str, *, seconds: float, compiler_seconds: float) -> None:
        """Note the GPU seconds that a compile Job held, and what the compiler took of them."""
        self._gpu_seconds.labels(product, result).inc(seconds)
        self._compiler_seconds.labels(product, result).inc(compiler_seconds)

    def loaded(self, operation: str, result: str, seconds: float) -> None:
        """Note a `load` or `unload` on one pod: `done`, `refused` or `unreachable`."""
        self._loads.labels(operation, result).inc()
        self._load_seconds.labels(operation).observe(seconds)

    def tree_written(self, result: str) -> None:
        """Note that a keeper was sent a tree: `done`, `refused` or `unreachable`."""
        self._tree_writes.labels(result).inc()

    def checked(self, result: str) -> None:
        """Note a check of a version's answers, by its reason."""
        self._checks.labels(result).inc()

    def drifted(self) -> None:
        """Note a difference between a pod and its tree that the operator had no hand in."""
        self._drifts.inc()

    def leading(self, held: bool) -> None:  # noqa: FBT001 - a callback of the lease
        """Note whether this process holds the lease; made to be `Lease`'s `on_change`."""
        self._leader.set(held)
