"""What the caches say about a model on one of its servers, put together for the plan."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

from engine_builder.contract import Snapshot, TreeState
from triton_operator.clients.kube import (
    DEPLOYMENT,
    POD,
    Object,
)
from triton_operator.controllers.context import Context
from triton_operator.controllers.converger import ModelReport, PodReport
from triton_operator.controllers.volumes import tree_of, versions_in
from triton_operator.plan import exclusion, lending, names, pods, publish, triton_workload, versions
from triton_operator.plan.outcome import Outcome, Ready, Stalled, Waiting
from triton_operator.plan.publish import Published, Seen
from triton_operator.plan.trial import is_trial, name_of
from triton_operator.plan.versions import Build, Outcomes, Site, Sites
from triton_operator.plan.views import PodView, ServerView, TrialView
from triton_operator.resources.common import Resource
from triton_operator.resources.engine import Engine
from triton_operator.resources.inference_model import InferenceModel
from triton_operator.resources.model_repository import ModelRepository
from triton_operator.resources.triton_server import TritonServer


@dataclasses.dataclass(frozen=True)
class Ground:
    """What a server stands on: its repository, the volume as last seen, and its release.

    `former` are the trees of other releases that pods read, and none once a pod reads this release's.
    """

    server: TritonServer
    repository: ModelRepository
    store: Snapshot
    release: str
    former: tuple[TreeState, ...] = ()

    @property
    def site(self) -> Site:
        """Return what engines for this server depend on."""
        return site_of(self.server, repository_uid=self.repository.metadata.uid)

    def carried(self, model: InferenceModel) -> frozenset[int]:
        """Return the versions that pods of other releases serve, while none reads this release's tree."""
        found = frozenset(int(n) for tree in self.former for n in tree.models.get(model.triton_name, {}))
        return found & {version.number for version in model.spec.versions}


class NothingKnownYet(Exception):
    """No verdict: what it would rest on was not looked at since this process began.

    Without it, a restarted operator would tell everybody for a moment that nothing is served.
    """


RETRY_SECONDS = 2.0
"""After so long without a verdict it is tried again, should nobody tell that it can be given."""


def models_of(ctx: Context, server: TritonServer) -> list[InferenceModel]:
    """Return the models that name a server, on their way out excepted."""
    found = ctx.cache.read_all(InferenceModel, server.namespace)
    return [m for m in found if server.name in m.spec.servers and m.metadata.deletion_timestamp is None]


def ground_of(ctx: Context, server: TritonServer) -> Ground | Outcome:
    """Return what a server stands on, or what is missing."""
    repository = ctx.cache.read(ModelRepository, server.namespace, server.spec.repository)
    if repository is None:
        message = (
            f"ModelRepository {server.spec.repository} does not exist in namespace {server.namespace} yet"
        )
        return Waiting("RepositoryNotFound", message)
    if server.release is None:
        message = (
            f"the tag of image {server.spec.image!r} doesn't tell the Triton release; "
            'set spec.release, such as "26.07"'
        )
        return Stalled("ReleaseUnknown", message)
    store = ctx.volumes.snapshot((server.namespace, repository.name))
    if store is None:
        if not ctx.volumes.tried((server.namespace, repository.name)):
            raise NothingKnownYet
        return Waiting("RepositoryNotReady", f"ModelRepository {repository.name}: {said(repository)}")
    return Ground(
        server=server,
        repository=repository,
        store=store,
        release=server.release,
        former=_former_trees(ctx, server, store),
    )


def _former_trees(ctx: Context, server: TritonServer, store: Snapshot) -> tuple[TreeState, ...]:
    releases = _releases_read(ctx, server)
    if server.release in releases:
        return ()
    return tuple(tree for tree in store.trees if tree.server == server.name and tree.release in releases)


def _releases_read(ctx: Context, server: TritonServer) -> set[str]:
    """Return the releases whose trees pods of a server read; without any, those that are about to come."""
    found = [pod["metadata"] for pod in pods_of(ctx, server) if pods.stands(pod)]
    live = deployment_of(ctx, server)
    # When the last pod is lent it comes back as it was.
    if not found and live is not None and (live["spec"].get("replicas") or lending.loan_of(live)):
        found = [live["spec"]["template"]["metadata"]]
    return {each["labels"].get(names.RELEASE) for each in found}


def repository_of(ctx: Context, namespace: str, server: str) -> str | None:
    """Return the name of the repository that a server stands on, or None without such a server."""
    found = ctx.cache.read(TritonServer, namespace, server)
    return found.spec.repository if found is not None else None


def site_of(server: TritonServer, *, repository_uid: str) -> Site:
    """Return what engines for a server depend on."""
    return Site(repository_uid, server.release or "", server.target)


def sites_on(ctx: Context, namespace: str, repository: str, *, uid: str) -> Sites:
    """Return the servers that stand on a repository."""
    servers = ctx.cache.read_all(TritonServer, namespace)
    own = {s.name: site_of(s, repository_uid=uid) for s in servers if s.spec.repository == repository}
    return Sites(uid, own)


def said(resource: Resource) -> str:
    """Return what an object's own Ready condition says."""
    condition = resource.status.condition("Ready")  # type: ignore[attr-defined]
    return condition.message if condition is not None else "not looked at yet"


def engine_outcomes(ctx: Context, namespace: str) -> dict[str, Outcome]:
    """Return what the Engine objects of a namespace report, as outcomes."""
    return {engine.name: _engine_outcome(engine) for engine in ctx.cache.read_all(Engine, namespace)}


def view_of(ctx: Context, model: InferenceModel, name: str, outcomes: Outcomes) -> ServerView:
    """Return what the server of this name does with a model."""
    server = ctx.cache.read(TritonServer, model.namespace, name)
    if server is None:
        message = f"TritonServer {name} does not exist in namespace {model.namespace} yet"
        return ServerView(name=name, refusal=Waiting("ServerNotFound", message), known=False)
    refusal = publish.refusal(model, server, models_of(ctx, server))
    if refusal is not None:
        return ServerView(name=name, refusal=refusal)
    ground = ground_of(ctx, server)
    if isinstance(ground, Outcome):
        waiting = Waiting("ServerNotReady", f"TritonServer {name}: {ground.message}")
        return ServerView(name=name, refusal=waiting, known=False)
    return _view(ctx, model, ground, outcomes)


def _view(ctx: Context, model: InferenceModel, ground: Ground, outcomes: Outcomes) -> ServerView:
    server = ground.server
    tree = tree_of(ground.store, server=server.name, release=ground.release)
    in_tree = versions_in(tree, model.triton_name)
    builds = builds_of(ground, model, outcomes)
    place = (server.namespace, server.name)
    reports = ctx.fleet.reports(place)
    if not ctx.fleet.tried(place) or not all(report.asked for report in reports):
        raise NothingKnownYet
    stalled = server.status.condition("Stalled")
    if not reports and stalled is not None and stalled.status.value == "True":
        refusal = Waiting("ServerNotReady", f"TritonServer {server.name}: {stalled.message}")
        return ServerView(name=server.name, refusal=refusal, builds=builds, in_tree=in_tree)
    loan = lending.loan_of(deployment_of(ctx, server))
    return ServerView(
        name=server.name,
        builds=builds,
        in_tree=in_tree,
        wanted_pods=lending.needed(server, loan),
        lent=lending.lent(server, loan),
        agreed=_is_told(ctx, ground, model, builds),
        pods=tuple(_pod_view(ctx, server, report, model.triton_name) for report in reports),
        trial=_trial_view(model, versions_in(tree, name_of(model.triton_name)), reports),
    )


def builds_of(ground: Ground, model: InferenceModel, outcomes: Outcomes) -> tuple[Build, ...]:
    """Return how far a model's versions are in the repository that a server stands on."""
    tree = tree_of(ground.store, server=ground.server.name, release=ground.release)
    return versions.builds(
        model,
        ground.site,
        store=ground.store,
        outcomes=outcomes,
        in_tree=versions_in(tree, model.triton_name),
    )


def published_of(
    ctx: Context, ground: Ground, model: InferenceModel, builds: Sequence[Build]
) -> Published | None:
    """Return what a server's tree must hold of a model."""
    seen = seen_of(ctx, ground, model)
    return publish.publish(model, publish.place(model, builds, seen), ground.store.engines)


def _is_told(ctx: Context, ground: Ground, model: InferenceModel, builds: Sequence[Build]) -> bool:
    """Tell whether the pods were told of what the model's spec says now."""
    server = ground.server
    made = published_of(ctx, ground, model, builds)
    assignment = ctx.fleet.assignment((server.namespace, server.name))
    told = assignment.desired.get(model.triton_name) if assignment is not None else None
    return told == (made.desired() if made is not None else None)


def _trial_view(
    model: InferenceModel, on_trial: Mapping[int, str], reports: Sequence[PodReport]
) -> TrialView | None:
    if not on_trial:
        return None
    number, engine = max(on_trial.items())
    name = name_of(model.triton_name)
    for report in reports:
        if name in report.models:
            found = report.models[name]
            return TrialView(
                number=number,
                engine=engine,
                pod=report.pod,
                ready=number in found.ready and found.current,
                trouble=found.trouble,
                given_up=found.given_up,
            )
    return TrialView(number=number, engine=engine)


def _pod_view(ctx: Context, server: TritonServer, report: PodReport, model: str) -> PodView:
    found = report.models.get(model)
    pod = ctx.cache.get(POD.kind, server.namespace, report.pod)
    if pod is None or not pods.is_ready(pod):  # no Service sends requests there
        return PodView(name=report.pod, ready=frozenset(), current=False, silence="not ready")
    if found is None:
        return PodView(name=report.pod, ready=frozenset(), current=False, silence=report.trouble)
    return PodView(
        name=report.pod,
        ready=found.ready,
        current=found.current,
        trouble=found.trouble,
        given_up=found.given_up,
    )


def seen_of(ctx: Context, ground: Ground, model: InferenceModel) -> Seen:
    """Return what a server's tree and pods have of a model.

    A pod that can't be asked confirms nothing and holds up nobody: it gets the tree when it answers.
    """
    server, store = ground.server, ground.store
    tree = tree_of(store, server=server.name, release=ground.release)
    in_tree = versions_in(tree, model.triton_name)
    reports = ctx.fleet.reports((server.namespace, server.name))
    ready = [_ready(report, model.triton_name) for report in reports if report.loaded is not None]
    nobody = not reports and not any(map(pods.may_serve, pods_of(ctx, server)))
    return Seen(
        in_tree={number: engine for number, engine in in_tree.items() if engine in store.engines},
        on_trial=versions_in(tree, name_of(model.triton_name)),
        confirmed=None if nobody else frozenset.intersection(*ready) if ready else frozenset(),
        loaded=frozenset().union(*ready),
        carried=ground.carried(model),
    )


def _ready(report: PodReport, model: str) -> frozenset[int]:
    return report.models[model].ready if model in report.models else frozenset()


def deployment_of(ctx: Context, server: TritonServer) -> Object | None:
    """Return the Deployment of a server's pods; a foreign one of its name is none."""
    live = ctx.cache.get(DEPLOYMENT.kind, server.namespace, names.deployment_of_server(server.name))
    return live if live is not None and pods.is_owned_by(live, server.metadata.uid) else None


def pods_of(ctx: Context, server: TritonServer) -> list[Object]:
    """Return the pods of a server."""
    return ctx.cache.labelled(POD.kind, server.namespace, triton_workload.pod_labels(server))


def served_by_pods(ctx: Context, server: TritonServer) -> dict[str, exclusion.Served]:
    """Return by pod's name what requests find there, and what they don't though they should."""
    own_pods = {pod["metadata"]["name"]: pod for pod in pods_of(ctx, server)}
    relied_on = {
        f"{model.triton_name}/{entry.number}"
        for model in models_of(ctx, server)
        for entry in model.status.versions
        if entry.served_since is not None  # a newer one that fails is taken back
    }
    found = {}
    for report in ctx.fleet.reports((server.namespace, server.name)):
        pod = own_pods.get(report.pod)
        if report.loaded is None or pod is None:
            continue
        is_out = pod["metadata"]["labels"].get(names.SERVING) == "false"
        models = [(name, each) for name, each in report.models.items() if not is_trial(name)]
        missed = (_lacked(name, each) if is_out else _failed(name, each) for name, each in models)
        found[report.pod] = exclusion.Served(
            found=frozenset(item for name, each in models for item in _found(name, each)),
            missed=frozenset(itertools.chain(*missed)) & (relied_on | report.models.keys()),
            ready=pods.is_ready(pod),
        )
    return found


def _found(name: str, report: ModelReport) -> set[str]:
    return {f"{name}/{version}" for version in report.ready} | ({name} if report.ready else set())


def _lacked(name: str, report: ModelReport) -> set[str]:
    """Return all that is missing, failed or not: a pod that is out comes in when it has everything."""
    return {f"{name}/{version}" for version in report.lacking} | (set() if report.ready else {name})


def _failed(name: str, report: ModelReport) -> set[str]:
    """Return what can't be loaded: a model at the first failure, a version when it is given up."""
    given_up = {f"{name}/{version}" for version in report.lacking} if report.given_up is not None else set()
    return given_up | ({name} if report.trouble and not report.ready else set())


def _engine_outcome(engine: Engine) -> Outcome:
    ready, stalled = engine.status.condition("Ready"), engine.status.condition("Stalled")
    if ready is None or stalled is None:
        return Waiting("Building", f"Engine {engine.name} was not looked at yet")
    if ready.status.value == "True":
        return Ready(ready.reason, ready.message)
    if stalled.status.value == "True":
        return Stalled(stalled.reason, stalled.message)
    return Waiting(ready.reason, ready.message)
