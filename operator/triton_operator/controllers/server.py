"""TritonServer: its tree on the volume first, then its pods; Services in front of them."""

from __future__ import annotations

from engine_builder.contract import Reason, TreeState
from triton_operator.clients.keeper import KeeperCallError, KeeperRefused
from triton_operator.clients.kube import DEPLOYMENT, POD, SERVICE, TRITON_SERVER, Object
from triton_operator.controllers import survey
from triton_operator.controllers.context import Context
from triton_operator.controllers.fleet import Assignment
from triton_operator.controllers.queue import Key
from triton_operator.controllers.survey import Ground
from triton_operator.controllers.volumes import tree_of, versions_in
from triton_operator.plan import names, pods, publish, triton_workload, versions
from triton_operator.plan.keeper_workload import key_secret
from triton_operator.plan.outcome import Outcome, OutcomeError, Ready, Waiting
from triton_operator.plan.publish import Published
from triton_operator.resources.inference_model import InferenceModel
from triton_operator.resources.triton_server import TritonServer


async def reconcile(ctx: Context, key: Key) -> float | None:
    """Bring one TritonServer to what its spec, and the models that name it, say."""
    place = (key.namespace, key.name)
    body = ctx.cache.get(TRITON_SERVER.kind, *place)
    if body is None:
        ctx.fleet.dismiss(place)
        return None
    server = TritonServer.parse(body)
    if server.metadata.deletion_timestamp is not None:
        return None
    try:
        outcome = await _reconcile(ctx, server)
    except survey.NothingKnownYet:
        return survey.RETRY_SECONDS
    except OutcomeError as error:
        outcome = error.outcome
    ctx.fleet.note_tried(place)
    await _write_status(ctx, server, outcome)
    return ctx.look_again(outcome)


async def _reconcile(ctx: Context, server: TritonServer) -> Outcome:
    await _services(ctx, server)
    ground = survey.ground_of(ctx, server)
    if isinstance(ground, Outcome):
        raise OutcomeError(ground)
    published = _published(ctx, ground)
    await _write_tree(ctx, ground, published, kept=_leaving(ctx, ground, published))
    deployment = await _deployment(ctx, ground, models=len(published))
    _assign(ctx, server, published)
    return _outcome(server, deployment, models=len(published), own_pods=_pods(ctx, server))


async def _services(ctx: Context, server: TritonServer) -> None:
    wanted = triton_workload.services(server)
    for service in wanted:
        await ctx.children.ensure(SERVICE, service)
    known = {service["metadata"]["name"] for service in wanted}
    for live in ctx.cache.labelled(SERVICE.kind, server.namespace, triton_workload.pod_labels(server)):
        given_up = live["metadata"]["name"] not in known and pods.is_owned_by(live, server.metadata.uid)
        if given_up and "deletionTimestamp" not in live["metadata"]:
            await ctx.children.delete(SERVICE, live)


def _published(ctx: Context, ground: Ground) -> list[Published]:
    """Return what the tree must hold, model by model."""
    models = survey.models_of(ctx, ground.server)
    served = [model for model in models if publish.refusal(model, ground.server, models) is None]
    found = [_publish(ctx, ground, model) for model in served]
    return [model for model in found if model is not None]


def _publish(ctx: Context, ground: Ground, model: InferenceModel) -> Published | None:
    server, store = ground.server, ground.store
    tree = tree_of(store, server=server.name, release=ground.release)
    in_tree = versions_in(tree, model.triton_name)
    builds = versions.builds(
        model,
        repository_uid=ground.repository.metadata.uid,
        store=store,
        outcomes=versions.Outcomes(),
        in_tree=in_tree,
    )
    wanted = publish.engines_of(
        model,
        builds,
        in_tree={number: engine for number, engine in in_tree.items() if engine in store.engines},
        confirmed=survey.confirmed(ctx, server, model.triton_name),
        loaded=survey.loaded(ctx, server, model.triton_name),
    )
    if not wanted:
        return None
    signature = store.engines[wanted[max(wanted)]].signature
    return publish.publish(model, wanted, signature)


def _leaving(ctx: Context, ground: Ground, published: list[Published]) -> set[str]:
    """Return the models that must go, and can't yet: a pod holds them, or was not heard of."""
    server = ground.server
    tree = tree_of(ground.store, server=server.name, release=ground.release)
    unwanted = (tree.models.keys() if tree is not None else set()) - {model.name for model in published}
    reports = {report.uid: report for report in ctx.fleet.reports((server.namespace, server.name))}
    held: set[str] = set()
    for pod in filter(pods.may_serve, _pods(ctx, server)):
        report = reports.get(pod["metadata"]["uid"])
        held |= unwanted if report is None or report.loaded is None else unwanted & report.loaded
    return held


async def _write_tree(ctx: Context, ground: Ground, published: list[Published], *, kept: set[str]) -> None:
    manifest = publish.manifest(published, kept=kept)
    server, release = ground.server, ground.release
    tree = tree_of(ground.store, server=server.name, release=release)
    if tree is not None and tree.revision == manifest.revision:
        return
    place = (server.namespace, ground.repository.name)
    result = "unreachable"
    try:
        await ctx.volumes.put_tree(place, server=server.name, release=release, manifest=manifest)
        result = "done"
    except KeeperRefused as error:
        result = "refused"
        await ctx.volumes.refresh(place)  # it knows better what lies there
        raise OutcomeError(Waiting(error.reason, f"tree not written: {error.message}", after=2.0)) from error
    except KeeperCallError as error:
        raise OutcomeError(Waiting(Reason.UNREACHABLE.value, f"keeper: {error}", after=2.0)) from error
    finally:
        ctx.metrics.tree_written(result)


async def _deployment(ctx: Context, ground: Ground, *, models: int) -> Object:
    """Keep the Deployment: no pod before a model is published, so no GPU is held for nothing."""
    server = ground.server
    name = names.deployment_of_server(server.name)
    key = ctx.keys.triton(server.metadata.uid)
    secret = names.secret(name, key)
    live = ctx.cache.get(DEPLOYMENT.kind, server.namespace, name)
    if pods.needs_secret(live, _pods(ctx, server), secret):
        labels = triton_workload.pod_labels(server)
        await ctx.children.create_secret(key_secret(server, secret, labels, key.hex()))
    manifest = triton_workload.deployment(
        server,
        release=ground.release,
        claim=ground.repository.claim_name,
        secret=secret,
        replicas=server.spec.replicas if models else 0,
    )
    return await ctx.children.ensure(DEPLOYMENT, manifest)


def _assign(ctx: Context, server: TritonServer, published: list[Published]) -> None:
    place = (server.namespace, server.name)
    key = ctx.keys.triton(server.metadata.uid).hex()
    desired = {model.name: model.desired() for model in published}
    ctx.fleet.assign(place, Assignment(desired=desired, control_key=key))
    containers = (pods.running(pod, triton_workload.CONTAINER) for pod in _pods(ctx, server))
    ctx.fleet.observe(place, [container for container in containers if container is not None])


def _pods(ctx: Context, server: TritonServer) -> list[Object]:
    return ctx.cache.labelled(POD.kind, server.namespace, triton_workload.pod_labels(server))


def _outcome(server: TritonServer, deployment: Object, *, models: int, own_pods: list[Object]) -> Outcome:
    ready, wanted = _ready_pods(own_pods), server.spec.replicas
    if not models:
        return Ready("NoModels", "no model is published here yet: the pods start with the first one")
    if ready >= wanted and _is_rolled_out(deployment):
        noun = "model" if models == 1 else "models"
        return Ready("Serving", f"{ready}/{wanted} pods are ready, {models} {noun} published")
    for pod in own_pods:
        trouble = pods.waiting_trouble(pod)
        if trouble is not None:
            reason, message = trouble
            return Waiting(
                reason, f"{ready}/{wanted} pods are ready; pod {pod['metadata']['name']}: {message}"
            )
    return Waiting("PodsStarting", f"{ready}/{wanted} pods are ready")


def _is_rolled_out(deployment: Object) -> bool:
    status = deployment.get("status") or {}
    seen = status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0)
    return bool(seen and status.get("updatedReplicas", 0) >= status.get("replicas", 0))


def _ready_pods(own_pods: list[Object]) -> int:
    return sum(pods.is_ready(pod) for pod in own_pods)


async def _write_status(ctx: Context, server: TritonServer, outcome: Outcome) -> None:
    own_pods = _pods(ctx, server)
    ready = _ready_pods(own_pods)
    tree = _tree(ctx, server)
    await ctx.status.write(
        TRITON_SERVER,
        server,
        outcome,
        replicas=sum("deletionTimestamp" not in pod["metadata"] for pod in own_pods),
        ready_replicas=ready,
        selector=triton_workload.selector(server),
        release=server.release,
        revision=tree.revision if tree else server.status.revision,
        models=len(tree.models) if tree else server.status.models,
        pods=f"{ready}/{server.spec.replicas}",
    )


def _tree(ctx: Context, server: TritonServer) -> TreeState | None:
    store = ctx.volumes.snapshot((server.namespace, server.spec.repository))
    if store is None or server.release is None:
        return None
    return tree_of(store, server=server.name, release=server.release)
