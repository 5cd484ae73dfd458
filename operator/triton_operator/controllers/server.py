"""TritonServer: its tree on the volume first, then its pods; Services in front of them."""

from __future__ import annotations

import dataclasses

from engine_builder.contract import TreeState
from triton_operator.clients.kube import (
    DEPLOYMENT,
    POD_DISRUPTION_BUDGET,
    SERVICE,
    TRITON_SERVER,
    Object,
)
from triton_operator.controllers import lending, publishing, routes, steering, survey, targets
from triton_operator.controllers.context import Context
from triton_operator.controllers.queue import Key
from triton_operator.controllers.survey import Ground
from triton_operator.controllers.volumes import tree_of
from triton_operator.plan import names, pods, release_gate, triton_workload
from triton_operator.plan.conditions import shorten
from triton_operator.plan.keeper_workload import key_secret
from triton_operator.plan.lending import Decision, Loan, left_to, needed, told_by_server
from triton_operator.plan.outcome import Outcome, OutcomeError, Ready, Waiting
from triton_operator.plan.target import Resolution
from triton_operator.plan.trial import is_trial
from triton_operator.resources.gpu import TargetStatus
from triton_operator.resources.triton_server import Lacking, TritonServer

MOST_LACKING = 64
MOST_NAMED = 8
LACKING_LENGTH = 512


async def reconcile(ctx: Context, key: Key) -> float | None:
    """Bring one TritonServer to what its spec, and the models that name it, say."""
    place = (key.namespace, key.name)
    server = ctx.cache.read(TritonServer, *place)
    if server is None:
        ctx.fleet.dismiss(place)
        return None
    if server.metadata.deletion_timestamp is not None:
        return None
    target = targets.resolve(ctx, server)
    lent = Decision()
    try:
        lent = await lending.settle(ctx, server)
        outcome = await _reconcile(ctx, server, target, lent.loan)
    except survey.NothingKnownYet:
        return survey.RETRY_SECONDS
    except OutcomeError as error:
        outcome = error.outcome
    outcome = told_by_server(server, lent.loan, outcome)
    ctx.fleet.note_tried(place)
    await _write_status(ctx, server, outcome, target)
    if targets.status(ctx, server, target) != server.status.target:
        for concerned in routes.keys_on_server(ctx.cache, *place) - {key}:  # engines are made for a target
            ctx.queue.add(concerned)
    return min((each for each in (ctx.look_again(outcome), lent.after) if each is not None), default=None)


async def _reconcile(
    ctx: Context, server: TritonServer, target: Resolution | Outcome | None, loan: Loan | None
) -> Outcome:
    await steering.route(
        ctx, server
    )  # before Services select by it, as after an upgrade from an older operator
    await _services(ctx, server)
    await ctx.children.ensure(POD_DISRUPTION_BUDGET, triton_workload.disruption_budget(server))
    ground = survey.ground_of(ctx, server)
    if isinstance(ground, Outcome):
        raise OutcomeError(ground)
    edition = publishing.edition_of(ctx, ground)
    await publishing.write(ctx, ground, edition)
    if edition.to_come:
        steering.hold(ctx, ground)
        message = (
            f"pods of the former release serve on until release {ground.release} has the engines of "
            f"{', '.join(edition.to_come[:MOST_NAMED])}"
        )
        return Waiting("BuildingRelease", message)
    if isinstance(target, Outcome):
        await steering.steer(ctx, ground, edition)  # pods that are there stay, and are kept right
        return target
    hardware = targets.status(ctx, server, target)
    replicas = left_to(server, loan) if edition.models else 0
    deployment = await _deployment(ctx, ground, hardware, replicas=replicas, loan=loan)
    await steering.steer(ctx, ground, edition)
    outcome = _outcome(ctx, server, deployment, models=edition.models, wanted=needed(server, loan))
    return targets.told(server, target, outcome)


async def _services(ctx: Context, server: TritonServer) -> None:
    wanted = triton_workload.services(server)
    for service in wanted:
        await ctx.children.ensure(SERVICE, service)
    known = {service["metadata"]["name"] for service in wanted}
    for live in ctx.cache.labelled(SERVICE.kind, server.namespace, triton_workload.pod_labels(server)):
        given_up = live["metadata"]["name"] not in known and pods.is_owned_by(live, server.metadata.uid)
        if given_up and "deletionTimestamp" not in live["metadata"]:
            await ctx.children.delete(SERVICE, live)


async def _deployment(
    ctx: Context, ground: Ground, hardware: TargetStatus | None, *, replicas: int, loan: Loan | None
) -> Object:
    """Keep the Deployment: no pod before a model is published, so no GPU is held for nothing."""
    server = ground.server
    name = names.deployment_of_server(server.name)
    key = ctx.keys.triton(server.metadata.uid)
    secret = names.secret(name, key)
    live = ctx.cache.get(DEPLOYMENT.kind, server.namespace, name)
    if pods.needs_secret(live, survey.pods_of(ctx, server), secret):
        labels = triton_workload.pod_labels(server)
        await ctx.children.create_secret(key_secret(server, secret, labels, key.hex()))
    manifest = triton_workload.deployment(
        server,
        release=ground.release,
        claim=ground.repository.claim_name,
        secret=secret,
        replicas=replicas,
        hardware=hardware,
    )
    if loan is not None:  # else an apply would take it away
        manifest["metadata"].setdefault("annotations", {})[names.LENT] = loan.to_text()
    return await ctx.children.ensure(DEPLOYMENT, manifest)


def _outcome(ctx: Context, server: TritonServer, deployment: Object, *, models: int, wanted: int) -> Outcome:
    own_pods = survey.pods_of(ctx, server)
    ready = _ready_pods(own_pods)
    if not models:
        return Ready("NoModels", "no model is published here yet: the pods start with the first one")
    so_far = f"{ready}/{wanted} pods are ready"
    obstacle = _obstacle(server, own_pods)
    if obstacle is not None:
        return dataclasses.replace(obstacle, message=f"{so_far}; {obstacle.message}")
    if ready < wanted or not _is_rolled_out(deployment):
        return Waiting("PodsStarting", so_far)
    silent = _silent(ctx, server)
    if silent:
        return Waiting("PodUnreachable", f"{so_far}; {'; '.join(silent[:3])}")
    lacking = _lacking(ctx, server)
    if lacking:
        first = f"pod {lacking[0].pod} lacks model {lacking[0].model}: {lacking[0].message}"
        return Waiting("ModelsMissing", f"{so_far}; {first}")
    noun = "model" if models == 1 else "models"
    return Ready("Serving", f"{so_far}, {models} {noun} published")


def _obstacle(server: TritonServer, own_pods: list[Object]) -> Outcome | None:
    """Return what keeps a pod from starting: its own image, or what scheduler and kubelet say."""
    refused = release_gate.refusal(server, own_pods)
    if refused is not None:
        return refused
    for pod in own_pods:
        trouble = pods.waiting_trouble(pod)
        if trouble is not None:
            reason, message = trouble
            return Waiting(reason, f"pod {pod['metadata']['name']}: {message}")
    return None


def _silent(ctx: Context, server: TritonServer) -> list[str]:
    """Return which pods, though ready, don't answer on the control port, and why."""
    reports = ctx.fleet.reports((server.namespace, server.name))
    return [f"pod {report.pod}: {report.trouble}" for report in reports if report.silent]


def _lacking(ctx: Context, server: TritonServer) -> list[Lacking]:
    """Return which pods failed to load which models."""
    return [
        Lacking(pod=report.pod, model=name, message=shorten(found.trouble, LACKING_LENGTH))
        for report in ctx.fleet.reports((server.namespace, server.name))
        for name, found in sorted(report.models.items())
        if found.trouble and not is_trial(name)
    ][:MOST_LACKING]


def _is_rolled_out(deployment: Object) -> bool:
    status = deployment.get("status") or {}
    seen = status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0)
    return bool(seen and status.get("updatedReplicas", 0) >= status.get("replicas", 0))


def _ready_pods(own_pods: list[Object]) -> int:
    return sum(pods.is_ready(pod) for pod in own_pods)


async def _write_status(
    ctx: Context, server: TritonServer, outcome: Outcome, target: Resolution | Outcome | None
) -> None:
    own_pods = survey.pods_of(ctx, server)
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
        target=targets.status(ctx, server, target),
        revision=tree.revision if tree else server.status.revision,
        models=sum(not is_trial(name) for name in tree.models) if tree else server.status.models,
        pods=f"{ready}/{server.spec.replicas}",
        lacking=_lacking(ctx, server),
    )


def _tree(ctx: Context, server: TritonServer) -> TreeState | None:
    store = ctx.volumes.snapshot((server.namespace, server.spec.repository))
    if store is None or server.release is None:
        return None
    return tree_of(store, server=server.name, release=server.release)
