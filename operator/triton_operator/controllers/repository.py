"""ModelRepository: its claim, its keeper, what lies on the volume, and what may go from it."""

from __future__ import annotations

from engine_builder.contract import Snapshot, SweepRequest
from triton_operator.clients.keeper import Keeper, KeeperCallError, KeeperRefused
from triton_operator.clients.kube import (
    CLAIM,
    DEPLOYMENT,
    ENGINE,
    INFERENCE_MODEL,
    MODEL_REPOSITORY,
    POD,
    TRITON_SERVER,
    Object,
)
from triton_operator.controllers.context import Context
from triton_operator.controllers.queue import Key
from triton_operator.plan import jobs, keeper_workload, names, pods, samples, size, sweep
from triton_operator.plan.outcome import Outcome, OutcomeError, Ready, Stalled, Waiting
from triton_operator.resources.engine import Engine
from triton_operator.resources.inference_model import InferenceModel
from triton_operator.resources.model_repository import ModelRepository
from triton_operator.resources.triton_server import TritonServer

_USERS_FAULTS = frozenset({"ForeignVolume", "VolumeUnfit"})
_STANDING = (
    (ENGINE, ""),
    (INFERENCE_MODEL, ""),
    (TRITON_SERVER, ""),
    (DEPLOYMENT, names.SELECT_OURS),
    (POD, names.SELECT_OURS),
)
"""Kinds whose objects keep something on the volume, and the labels by which ours are found."""


async def reconcile(ctx: Context, key: Key) -> float | None:
    """Bring one ModelRepository to what its spec says."""
    place = (key.namespace, key.name)
    repository = ctx.cache.read(ModelRepository, *place)
    if repository is None:
        ctx.volumes.forget(place)
        return None
    if repository.metadata.deletion_timestamp is not None:
        return None
    try:
        outcome = await _reconcile(ctx, repository)
    except OutcomeError as error:
        outcome = error.outcome  # what was last seen on the volume stays known: pods go on serving
    ctx.volumes.note_tried(place)
    await _write_status(ctx, repository, outcome)
    again = ctx.look_again(outcome)
    return min(again, ctx.settings.fleet_seconds) if again is not None else ctx.settings.fleet_seconds


async def _reconcile(ctx: Context, repository: ModelRepository) -> Outcome:
    claim = await _claim(ctx, repository)
    await _keeper(ctx, repository, claim_uid=claim["metadata"]["uid"])
    container = _running_keeper(ctx, repository)
    place = (repository.namespace, repository.name)
    key = ctx.keys.keeper(repository.metadata.uid)
    ctx.volumes.connect(place, Keeper(ctx.http, f"{container.ip}:{keeper_workload.PORT}", key))
    try:
        found = await ctx.volumes.refresh(place)
        if found is not None:
            await _sweep(ctx, repository, found)
    except KeeperRefused as error:
        kind = Stalled if error.reason in _USERS_FAULTS else Waiting
        raise OutcomeError(kind(error.reason, error.message, after=5.0)) from error
    except KeeperCallError as error:
        raise OutcomeError(
            Waiting("KeeperUnreachable", f"pod {container.pod}: {error}", after=2.0)
        ) from error
    return Ready("Kept", f"the keeper serves the volume of claim {repository.claim_name}")


async def _claim(ctx: Context, repository: ModelRepository) -> Object:
    name = repository.claim_name
    if repository.spec.claim_name is not None:
        found = await ctx.kube.get(CLAIM, repository.namespace, name)
        if found is None:
            message = f"PersistentVolumeClaim {name} does not exist in namespace {repository.namespace} yet"
            raise OutcomeError(Waiting("ClaimNotFound", message, after=5.0))
        return found
    live = ctx.cache.get(CLAIM.kind, repository.namespace, name)
    if live is None:  # created once: a claim's spec is hardly ever ours to change again
        live = await ctx.children.create_once(CLAIM, keeper_workload.claim(repository))
    return live


async def _keeper(ctx: Context, repository: ModelRepository, *, claim_uid: str) -> None:
    name = names.deployment_of_keeper(repository.name)
    key = ctx.keys.keeper(repository.metadata.uid)
    secret = names.secret(name, key)
    live = ctx.cache.get(DEPLOYMENT.kind, repository.namespace, name)
    labels = names.labels("keeper", repository=repository.name)
    if pods.needs_secret(live, _keeper_pods(ctx, repository), secret):
        await ctx.children.create_secret(keeper_workload.key_secret(repository, secret, labels, key.hex()))
    await ctx.children.ensure(
        DEPLOYMENT,
        keeper_workload.deployment(
            repository,
            secret=secret,
            cluster_uid=ctx.cluster_uid,
            claim_uid=claim_uid,
            images=ctx.images(repository),
        ),
    )


def _keeper_pods(ctx: Context, repository: ModelRepository) -> list[Object]:
    return ctx.cache.labelled(
        POD.kind, repository.namespace, names.labels("keeper", repository=repository.name)
    )


def _running_keeper(ctx: Context, repository: ModelRepository) -> pods.RunningContainer:
    """Return the keeper's running container, ready or not: an unready one says why when asked."""
    found = _keeper_pods(ctx, repository)
    running = [pods.running(pod, keeper_workload.CONTAINER) for pod in found]
    for container in running:
        if container is not None:
            return container
    troubles = [trouble for trouble in map(pods.waiting_trouble, found) if trouble is not None]
    if troubles:
        reason, message = troubles[0]
        raise OutcomeError(Waiting(reason, f"keeper: {message}"))
    raise OutcomeError(Waiting("KeeperStarting", "the keeper's pod is being started"))


async def _sweep(ctx: Context, repository: ModelRepository, found: Snapshot) -> None:
    """Remove what no object stands for; looked at twice, the second time at the API server itself."""
    if not sweep.is_needed(_kept(ctx, repository), found):
        return
    for kind, labels in _STANDING:
        known = frozenset(o["metadata"]["uid"] for o in ctx.cache.all(kind.kind, repository.namespace))
        listed = await ctx.kube.list(kind, namespace=repository.namespace, labels=labels)
        ctx.cache.replace(kind.kind, listed, known_before=known)
    request = _kept(ctx, repository)
    place = (repository.namespace, repository.name)
    keeper = ctx.volumes.keeper(place)
    if keeper is None or not sweep.is_needed(request, found):
        return
    removed = await keeper.sweep(request)
    if removed.engines or removed.trees:
        await ctx.volumes.refresh(place)


def _kept(ctx: Context, repository: ModelRepository) -> SweepRequest:
    namespace, name = repository.namespace, repository.name
    engines = ctx.cache.read_all(Engine, namespace)
    servers = ctx.cache.read_all(TritonServer, namespace)
    models = ctx.cache.read_all(InferenceModel, namespace)
    own_servers = [server for server in servers if server.spec.repository == name]
    releases = {(server.name, server.release) for server in own_servers if server.release is not None}
    own_names = {server.name for server in own_servers}
    releases |= {(s, r) for s, r in _releases_in_use(ctx, namespace) if s in own_names}
    preparing = [
        pod
        for component in (jobs.PREPARE, jobs.CONVERT, jobs.COMPILE, samples.COMPONENT)
        for pod in ctx.cache.labelled(POD.kind, namespace, names.labels(component))
    ]
    return sweep.keep(
        engines={
            *(engine.name for engine in engines if engine.spec.repository == name),
            *samples.kept(models, repository_uid=repository.metadata.uid),
        },
        servers=releases,
        staging=[pod["metadata"]["uid"] for pod in preparing if not pods.has_ended(pod)],
    )


def _releases_in_use(ctx: Context, namespace: str) -> set[tuple[str, str]]:
    """Return the trees (server, release) that pods read, or that pods will read which start now."""
    labels = names.labels("triton")
    metadata = [pod["metadata"] for pod in ctx.cache.labelled(POD.kind, namespace, labels)]
    deployments = ctx.cache.labelled(DEPLOYMENT.kind, namespace, labels)
    metadata += [deployment["spec"]["template"]["metadata"] for deployment in deployments]
    found = [each["labels"] for each in metadata]
    return {(each[names.SERVER], each[names.RELEASE]) for each in found if names.RELEASE in each}


async def _write_status(ctx: Context, repository: ModelRepository, outcome: Outcome) -> None:
    found = ctx.volumes.snapshot((repository.namespace, repository.name))
    before = repository.status
    fields: dict[str, object] = {"claim": repository.claim_name}
    if found is None:
        fields |= {
            "bytes_total": before.bytes_total,
            "bytes_free": before.bytes_free,
            "engines": before.engines,
            "capabilities": before.capabilities,
        }
    else:
        volume = found.volume
        able = [name for name in ("rename", "links", "fsync") if getattr(volume, name)]
        free = size.steady(volume.bytes_free, of=volume.bytes_total, shown=before.bytes_free)
        fields |= {
            "bytes_total": size.human(volume.bytes_total),
            "bytes_free": free,
            "engines": sum(not samples.is_entry(name) for name in found.engines),
            "capabilities": able,
        }
    await ctx.status.write(MODEL_REPOSITORY, repository, outcome, **fields)
