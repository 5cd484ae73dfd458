"""What an engine that is compiled waits for, and the work on it: its origin, a server's settings, a turn."""

from __future__ import annotations

import dataclasses

from triton_operator.clients.kube import JOB, POD
from triton_operator.controllers import attempts, lending, targets
from triton_operator.controllers.attempts import Work
from triton_operator.controllers.context import Context
from triton_operator.controllers.volumes import PROGRESS_SECONDS
from triton_operator.plan import compile_jobs, jobs, names, pods, target
from triton_operator.plan.attempts import Running, Verdict
from triton_operator.plan.lending import told_by_engine
from triton_operator.plan.outcome import Outcome, Stalled, Waiting
from triton_operator.plan.target import Resolution
from triton_operator.resources.engine import Engine
from triton_operator.resources.model_repository import ModelRepository
from triton_operator.resources.triton_server import TritonServer

TURN_SECONDS = 2.0
"""How soon an engine that waits for its turn looks again."""


def work(ctx: Context, engine: Engine, repository: ModelRepository) -> Work | Outcome:
    """Return how an engine is compiled, or what must be there before."""
    waiting = before(ctx, engine, repository)
    if waiting is not None:
        return waiting
    server = _server(ctx, engine)
    if server is None:
        product = engine.spec.target.product if engine.spec.target else ""
        message = f"no TritonServer with {product} and release {engine.spec.release} is there to build it"
        return Waiting("NoServer", message)
    image, found = server.compiler_image, targets.resolve(ctx, server)
    if image is None:
        message = f"TritonServer {server.name}: set spec.compilerImage, as its release is not known"
        return Stalled("CompilerImageUnknown", message)
    if isinstance(found, Resolution) and (shared := target.no_build(server, found)) is not None:
        return shared
    return _turn(ctx, engine, server) or Work(
        owner=engine,
        labels=jobs.labels_of(engine),
        job=lambda attempt: compile_jobs.compile_(
            engine=engine,
            server=server,
            attempt=attempt,
            claim=repository.claim_name,
            images=ctx.images(repository),
            image=image,
        ),
    )


def _server(ctx: Context, engine: Engine) -> TritonServer | None:
    """Return the server whose settings the engine's Jobs take."""
    return compile_jobs.lender(engine, ctx.cache.read_all(TritonServer, engine.namespace))


def gpus_of(ctx: Context, engine: Engine) -> int:
    """Return how many GPUs each of the engine's Jobs has."""
    server = _server(ctx, engine)
    return server.spec.gpu.count if server is not None and server.spec.gpu is not None else 1


def before(ctx: Context, engine: Engine, repository: ModelRepository) -> Outcome | None:
    """Say how far the prepared engine is that this one is made from, until it is in the store."""
    origin = engine.spec.origin or ""
    store = ctx.volumes.snapshot((engine.namespace, repository.name))
    if store is not None and origin in store.engines:
        return None
    prepared = ctx.cache.read(Engine, engine.namespace, origin)
    if prepared is None:
        return Waiting("OriginMissing", f"Engine {origin}, which it is made from, does not exist yet")
    ready = prepared.status.condition("Ready")
    told = f": {ready.message}" if ready is not None else ""
    return Waiting("Preparing", f"waits for Engine {origin}{told}")


def _turn(ctx: Context, engine: Engine, server: TritonServer) -> Outcome | None:
    """Let no more compile Jobs of a server run at once than it allows; one that runs goes on."""
    own = {**names.labels(jobs.COMPILE), names.SERVER: server.name}
    found = ctx.cache.labelled(JOB.kind, engine.namespace, own)
    if any(job["metadata"]["labels"].get(names.ENGINE) == engine.name for job in found):
        return None
    busy, most = compile_jobs.under_way(found), compile_jobs.settings_of(server).max_concurrent
    if busy < most:
        return None
    message = f"waits for its turn: {busy} of {most} builds of TritonServer {server.name} are under way"
    return Waiting("Queued", message, after=TURN_SECONDS)


def progress(ctx: Context, engine: Engine) -> int | None:
    """Return how far the compiler is, in percent, or None while it doesn't work."""
    known = ctx.volumes.progress((engine.namespace, engine.spec.repository))
    for pod in ctx.cache.labelled(POD.kind, engine.namespace, jobs.labels_of(engine)):
        percent = known.get(pod["metadata"]["uid"])
        if percent is not None and not pods.has_ended(pod):
            return percent
    return None


def with_progress(ctx: Context, engine: Engine, found: Verdict) -> Verdict:
    """Return the verdict on a running Job with how far its compiler is."""
    percent = progress(ctx, engine)
    if percent is None or not isinstance(found, Running):
        return found
    return dataclasses.replace(found, message=f"compiling, {percent} %")


def told(ctx: Context, engine: Engine, outcome: Outcome) -> Outcome:
    """Return the outcome of an engine under way with the GPU that its Job borrows; looked at often."""
    newest = attempts.newest(ctx, engine.namespace, jobs.labels_of(engine))
    server, loan = lending.loan_for(ctx, engine, newest.name if newest else "")
    outcome = told_by_engine(loan, server, outcome)
    if isinstance(outcome, Waiting) and outcome.after is None:
        return dataclasses.replace(outcome, after=min(PROGRESS_SECONDS, ctx.settings.fleet_seconds))
    return outcome
