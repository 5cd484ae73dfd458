"""What a server's pods are told: models to serve, candidates to try, and whether requests reach them."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from triton_operator.clients.kube import POD, Conflict, KubeError, Object
from triton_operator.controllers import survey
from triton_operator.controllers.context import Context
from triton_operator.controllers.fleet import Assignment
from triton_operator.controllers.publishing import Edition
from triton_operator.controllers.survey import Ground
from triton_operator.logs import about
from triton_operator.plan import exclusion, model_config, names, pods, trial, triton_workload
from triton_operator.plan.converge import Desired, DesiredModel
from triton_operator.plan.publish import Published
from triton_operator.resources.inference_model import InferenceModel
from triton_operator.resources.triton_server import TritonServer

log = logging.getLogger(__name__)


async def steer(ctx: Context, ground: Ground, edition: Edition) -> None:
    """Tell the pods what to serve, now that the tree holds it."""
    server = ground.server
    place = (server.namespace, server.name)
    before = ctx.fleet.assignment(place)
    desired: dict[str, DesiredModel | None] = dict.fromkeys(edition.untouched)
    desired |= {made.name: made.desired() for _, made in edition.published}
    own_pods = [pod for pod in survey.pods_of(ctx, server) if pods.stands(pod)]
    assignment = Assignment(
        desired=desired,
        control_key=ctx.keys.triton(server.metadata.uid).hex(),
        trials=_trials(ctx, ground, edition, own_pods),
        left_alone=frozenset(pod["metadata"]["uid"] for pod in own_pods if not _reads(pod, ground.release)),
        loads_at_once=server.spec.loads.max_concurrent,
        load_timeout_seconds=server.spec.loads.timeout_seconds,
    )
    ctx.fleet.assign(place, assignment)
    _observe(ctx, server, own_pods)
    for model, made in edition.published:
        former = before.desired.get(made.name) if before is not None else None
        if former is not None:
            _tell_reload(ctx, server, model, made, former)


def hold(ctx: Context, ground: Ground) -> None:
    """Leave pods that read another release's tree as they are, and look at what they do."""
    server = ground.server
    place = (server.namespace, server.name)
    own_pods = [pod for pod in survey.pods_of(ctx, server) if pods.stands(pod)]
    trees = [tree for tree in ground.store.trees if tree.server == server.name]
    assignment = Assignment(
        desired=dict.fromkeys(name for tree in trees for name in tree.models),
        control_key=ctx.keys.triton(server.metadata.uid).hex(),
        left_alone=frozenset(pod["metadata"]["uid"] for pod in own_pods),
    )
    ctx.fleet.assign(place, assignment)
    _observe(ctx, server, own_pods)


def _observe(ctx: Context, server: TritonServer, own_pods: Sequence[Object]) -> None:
    containers = [pods.running(pod, triton_workload.CONTAINER) for pod in own_pods]
    ctx.fleet.observe(
        (server.namespace, server.name),
        [container for container in containers if container is not None],
        standing=frozenset(pod["metadata"]["uid"] for pod in own_pods),
    )


async def route(ctx: Context, server: TritonServer) -> None:
    """Keep requests away from pods that lack a model which others serve, and let them back."""
    known = survey.served_by_pods(ctx, server)
    out = exclusion.left_out(known)
    own_pods = survey.pods_of(ctx, server)
    all_heard = {pod["metadata"]["name"] for pod in own_pods if pods.is_ready(pod)} <= known.keys()
    for pod in own_pods:
        metadata = pod["metadata"]
        wanted = "false" if metadata["name"] in out else "true"
        label = metadata["labels"].get(names.SERVING)
        # A pod comes in again by what all the others serve, which is not known at once after a start.
        heard = label is None or (metadata["name"] in known and (wanted == "false" or all_heard))
        if label == wanted or not heard or "deletionTimestamp" in metadata:
            continue
        try:
            ctx.cache.put(await _label(ctx, metadata, wanted))
        except Conflict:  # gone meanwhile
            continue
        except KubeError as error:  # the pods must be told what to serve all the same
            log.warning("not labelled: %s", error, extra=about("Pod", server.namespace, metadata["name"]))
            continue
        reason, said = ("LeftOut", "out of") if wanted == "false" else ("LetIn", "back in")
        message = f"pod {metadata['name']} is {said} the Service"
        ctx.status.tell(server, reason=reason, message=message, warning=wanted == "false")


async def _label(ctx: Context, metadata: Object, value: str) -> Object:
    namespace, name = metadata["namespace"], metadata["name"]
    return await ctx.kube.set_label(POD, namespace, name, names.SERVING, value, uid=metadata["uid"])


def _reads(pod: Object, release: str) -> bool:
    """Tell whether a pod reads the tree of a release; one of another goes when its successor serves."""
    return bool(pod["metadata"]["labels"].get(names.RELEASE) == release)


def _trials(ctx: Context, ground: Ground, edition: Edition, own_pods: Sequence[Object]) -> dict[str, Desired]:
    """Return what single pods must try, by their UID; `own_pods` are those that stand."""
    server = ground.server
    place = (server.namespace, server.name)
    candidates = {made.trial.name: made.trial for _, made in edition.published if made.trial is not None}
    reading = {pod["metadata"]["uid"]: pod for pod in own_pods if _reads(pod, ground.release)}
    reports = [report for report in ctx.fleet.reports(place) if report.uid in reading]
    hanging = {report.uid for report in reports if report.silent and pods.is_ready(reading[report.uid])}
    before = ctx.fleet.assignment(place)
    chosen = trial.hosts(
        candidates,
        [report.uid for report in reports if report.loaded is not None],
        before={name: uid for uid, tried in (before.trials if before else {}).items() for name in tried},
        standing=reading.keys() - hanging,
    )
    return {uid: {name: candidates[name].desired()} for name, uid in chosen.items()}


def _tell_reload(
    ctx: Context, server: TritonServer, model: InferenceModel, made: Published, former: DesiredModel
) -> None:
    """Say what a new configuration costs: all versions of the model are loaded anew."""
    if former.fingerprint == made.config.fingerprint:
        return
    changed = model_config.changes(former.config, made.config.text)
    fields = ", ".join("labels" if field == "output" else field for field in changed)
    numbers = ", ".join(map(str, sorted(made.engines)))
    message = (
        f"{fields} changed: every pod of TritonServer {server.name} loads version {numbers} anew; "
        f"the former configuration answers until the new one does"
    )
    ctx.status.tell(model, reason="Reloading", message=message)
