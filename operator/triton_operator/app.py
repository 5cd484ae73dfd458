"""The running operator: watches feed the caches and the queue, workers reconcile, one process at a time.

The only module that knows kopf. kopf watches our own kinds; its handlers put a key on the
queue and do nothing else. Children come through label-selected watches of `clients.kube`, and
so do nodes, of which little is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import kopf

from triton_operator import __version__
from triton_operator.clients.kube import (
    CLAIM,
    DEPLOYMENT,
    ENGINE,
    INFERENCE_MODEL,
    JOB,
    MODEL_REPOSITORY,
    NAMESPACE,
    NODE,
    POD,
    POD_DISRUPTION_BUDGET,
    SERVICE,
    TRITON_SERVER,
    Kind,
    Kube,
    Object,
    WatchEvent,
)
from triton_operator.clients.triton import Triton
from triton_operator.controllers import engine, keys, model, repository, routes, server
from triton_operator.controllers.cache import Cache
from triton_operator.controllers.children import Children
from triton_operator.controllers.chronicle import Chronicle
from triton_operator.controllers.context import Context
from triton_operator.controllers.fleet import Fleet, FleetObserver
from triton_operator.controllers.queue import Key, Queue
from triton_operator.controllers.status import StatusWriter
from triton_operator.controllers.volumes import Volumes
from triton_operator.health import serve
from triton_operator.lease import Lease
from triton_operator.metrics import Metrics
from triton_operator.plan import names, nodes, triton_workload
from triton_operator.settings import Settings

log = logging.getLogger(__name__)

CONTROL_SECONDS = 5.0
"""A Triton that doesn't answer its control API for so long hangs; loads have a limit of their own."""

OWN_KINDS = (MODEL_REPOSITORY, TRITON_SERVER, ENGINE, INFERENCE_MODEL)
CHILD_KINDS = (DEPLOYMENT, SERVICE, POD_DISRUPTION_BUDGET, JOB, POD, CLAIM)
RECONCILERS: dict[str, Callable[[Context, Key], Awaitable[float | None]]] = {
    MODEL_REPOSITORY.kind: repository.reconcile,
    TRITON_SERVER.kind: server.reconcile,
    ENGINE.kind: engine.reconcile,
    INFERENCE_MODEL.kind: model.reconcile,
}


async def run(settings: Settings) -> None:
    """Run the operator until a signal ends it.

    Raises:
        KubeError: the API server can't be used, such as for a missing right.
        LeaseLost: another process may have taken over; this one must end.
    """
    metrics = Metrics(version=__version__)
    started = asyncio.Event()
    ready = {"start": lambda: None if started.is_set() else "waiting for the lease, or reading the cluster"}
    async with (
        await Kube.connect(kubeconfig=settings.kubeconfig, on_write=metrics.api_write) as kube,
        serve(metrics, listen=settings.listen, ready=ready),
        _lease(settings, kube, metrics) as lease,
        _context(settings, kube, metrics) as ctx,
    ):
        await _read_cluster(ctx)
        await _until_signalled(
            _operate(ctx, started),
            lease.hold(),
        )


@contextlib.asynccontextmanager
async def _lease(settings: Settings, kube: Kube, metrics: Metrics) -> AsyncIterator[Lease]:
    lease = Lease(
        kube,
        namespace=settings.namespace,
        name=settings.lease_name,
        identity=settings.identity,
        owner=await _own_deployment(settings, kube),
        on_change=metrics.leading,
    )
    await _until_signalled(lease.acquire())
    try:
        yield lease
    finally:
        await lease.release()


@contextlib.asynccontextmanager
async def _context(settings: Settings, kube: Kube, metrics: Metrics) -> AsyncIterator[Context]:
    cache = Cache()
    queue = Queue(workers=settings.workers, observer=metrics)
    metrics.watch_queue(depth=lambda: queue.depth, running=lambda: len(queue.running))
    owner = await _own_deployment(settings, kube)
    status = StatusWriter(kube, cache, instance=settings.identity, look_again=queue.add_after)
    chronicle = Chronicle(cache=cache, queue=queue, status=status, metrics=metrics)
    fleet = _fleet(settings, chronicle)
    async with aiohttp.ClientSession() as http:
        try:
            yield Context(
                settings=settings,
                kube=kube,
                cache=cache,
                queue=queue,
                children=Children(kube, cache),
                status=status,
                volumes=Volumes(
                    lambda place, servers: _add(queue, routes.keys_on_volume(cache, *place, servers))
                ),
                fleet=fleet,
                keys=await keys.load(kube, namespace=settings.namespace, owner=owner),
                metrics=metrics,
                http=http,
                cluster_uid=settings.cluster_uid or await _cluster_uid(kube),
                reads_nodes=await _may_read_nodes(kube),
            )
        finally:
            await fleet.close()
            await status.close()


def _fleet(settings: Settings, observer: FleetObserver) -> Fleet:
    def connect(ip: str, control_key: str) -> Triton:
        return Triton(f"{ip}:{triton_workload.GRPC_PORT}", control_key=control_key, timeout=CONTROL_SECONDS)

    return Fleet(connect=connect, observer=observer, interval_seconds=settings.fleet_seconds)


async def _own_deployment(settings: Settings, kube: Kube) -> Object | None:
    """Return a reference to the operator's Deployment, with which its Lease and master key go."""
    if not settings.deployment:
        return None
    found = await kube.get(DEPLOYMENT, settings.namespace, settings.deployment)
    if found is None:
        return None
    return {
        "apiVersion": DEPLOYMENT.api_version,
        "kind": DEPLOYMENT.kind,
        "name": settings.deployment,
        "uid": found["metadata"]["uid"],
    }


async def _cluster_uid(kube: Kube) -> str:
    """Return what identifies the cluster: the UID of kube-system, which every cluster has once."""
    found = await kube.get(NAMESPACE, "", "kube-system")
    return str(found["metadata"]["uid"]) if found is not None else "unknown"


async def _may_read_nodes(kube: Kube) -> bool:
    """Tell whether nodes can be read: an operator of some namespaces may have no right on the cluster."""
    allowed = [await kube.may(verb, NODE) for verb in ("list", "watch")]
    if not all(allowed):
        log.warning("no right to list and watch nodes: spec.gpu of TritonServers must say what their GPU is")
    return all(allowed)


async def _read_cluster(ctx: Context) -> None:
    """Fill the caches before anything is decided: what isn't known must not be taken for absent."""
    for kind in OWN_KINDS:
        for obj in await _list(ctx, kind):
            ctx.cache.put(obj)
    for kind in CHILD_KINDS:
        for obj in await _list(ctx, kind, labels=names.SELECT_OURS):
            ctx.cache.put(obj)
    for obj in await ctx.kube.list(NODE, keep=nodes.kept) if ctx.reads_nodes else ():
        ctx.cache.put(obj)
    for kind in OWN_KINDS:
        for obj in ctx.cache.all(kind.kind):
            _add(ctx.queue, routes.keys_for(ctx.cache, obj))


async def _list(ctx: Context, kind: Kind, *, labels: str = "") -> list[Object]:
    spaces: tuple[str | None, ...] = ctx.settings.watch_namespaces or (None,)
    return [obj for space in spaces for obj in await ctx.kube.list(kind, namespace=space, labels=labels)]


async def _operate(ctx: Context, started: asyncio.Event) -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_run_kopf(ctx), name="kopf")
        for kind in CHILD_KINDS:
            for space in ctx.settings.watch_namespaces or (None,):
                children = ctx.kube.watch(kind, labels=names.SELECT_OURS, namespace=space)
                tasks.create_task(_follow(ctx, children), name=f"watch {kind.plural}")
        if ctx.reads_nodes:
            tasks.create_task(_follow(ctx, ctx.kube.watch(NODE, keep=nodes.kept)), name="watch nodes")
        tasks.create_task(_resync(ctx), name="resync")
        tasks.create_task(ctx.queue.run(lambda key: RECONCILERS[key.kind](ctx, key)), name="queue")
        started.set()
        log.info("triton-operator %s has started", __version__)


async def _follow(ctx: Context, events: AsyncIterator[WatchEvent]) -> None:
    async for event in events:
        if event.type != "SYNCED":
            _seen(ctx, event.object, gone=event.type == "DELETED")


async def _resync(ctx: Context) -> None:
    """Look at everything again from time to time, against events that were lost."""
    while True:
        await asyncio.sleep(ctx.settings.resync_seconds)
        for kind in OWN_KINDS:
            known = ctx.cache.uids(kind.kind)
            try:
                listed = await _list(ctx, kind)
            except Exception as error:  # noqa: BLE001 - the next round comes
                log.warning("resync of %s: %s", kind.plural, error)
                continue
            changed = ctx.cache.replace(kind.kind, listed, known_before=known)
            for obj in [*changed, *ctx.cache.all(kind.kind)]:
                _add(ctx.queue, routes.keys_for(ctx.cache, obj))


def _seen(ctx: Context, obj: Object, *, gone: bool) -> None:
    metadata = obj["metadata"]
    before = ctx.cache.get(obj["kind"], metadata.get("namespace", ""), metadata["name"])
    changed = ctx.cache.remove(obj) if gone else ctx.cache.put(obj)
    if not changed:
        return
    _add(ctx.queue, routes.keys_for(ctx.cache, obj, before=None if gone else before))
    if before is not None:  # what it was tied to until now
        _add(ctx.queue, routes.keys_for(ctx.cache, before, before=None if gone else obj))


def _add(queue: Queue, found: set[Key]) -> None:
    for key in found:
        queue.add(key)


async def _run_kopf(ctx: Context) -> None:
    if ctx.settings.kubeconfig:
        os.environ["KUBECONFIG"] = ctx.settings.kubeconfig  # kopf's own login reads it there
    await kopf.operator(
        registry=_registry(ctx),
        settings=_kopf_settings(),
        clusterwide=not ctx.settings.watch_namespaces,
        namespaces=ctx.settings.watch_namespaces,
        identity=ctx.settings.identity,
    )
    raise RuntimeError("kopf ended by itself")


def _registry(ctx: Context) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()

    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    def note(kind: Kind) -> Callable[..., Awaitable[None]]:
        # async, though it awaits nothing: kopf runs plain functions in threads, and cache and queue
        # belong to the event loop.
        async def handler(event: dict[str, Any], **_: Any) -> None:
            obj = {"apiVersion": kind.api_version, "kind": kind.kind, **copy.deepcopy(dict(event["object"]))}
            _seen(ctx, obj, gone=event["type"] == "DELETED")

        return handler

    kopf.on.login(registry=registry, retries=3)(login)
    for kind in OWN_KINDS:
        group, version = kind.api_version.split("/")
        kopf.on.event(group, version, kind.plural, registry=registry, id=kind.plural)(note(kind))
    return registry


def _kopf_settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.scanning.disabled = True
    settings.watching.server_timeout = 300
    settings.watching.connect_timeout = 10
    settings.networking.request_timeout = 30
    settings.persistence.finalizer = f"{names.GROUP}/never"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=names.GROUP)
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=names.GROUP)
    return settings


async def _until_signalled(*work: Awaitable[Any]) -> None:
    """Await the work; SIGTERM and SIGINT cancel it and make this return.

    The first piece of work that ends or fails ends all.
    """
    loop = asyncio.get_running_loop()
    signalled = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled.set)
    tasks = [asyncio.ensure_future(piece) for piece in (*work, signalled.wait())]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    for task in done:
        task.result()
    if signalled.is_set():
        log.info("ended by a signal")
