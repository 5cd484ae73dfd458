"""The replica that a server lends to a build, taken away and given back; `plan.lending` decides."""

from __future__ import annotations

import datetime
import logging

from triton_operator.clients.kube import DEPLOYMENT, ENGINE, JOB, POD, Conflict, Object
from triton_operator.controllers import survey
from triton_operator.controllers.context import Context
from triton_operator.controllers.queue import Key
from triton_operator.logs import about
from triton_operator.plan import jobs, lending, names
from triton_operator.plan.lending import Decision, Loan
from triton_operator.plan.outcome import OutcomeError, Waiting
from triton_operator.resources.engine import Engine
from triton_operator.resources.triton_server import TritonServer

log = logging.getLogger(__name__)


async def settle(ctx: Context, server: TritonServer) -> Decision:
    """Let a replica step back for a build, or return, whatever else the server waits for.

    Raises:
        OutcomeError: Waiting, as the Deployment was replaced meanwhile.
    """
    live = survey.deployment_of(ctx, server)
    if live is None:
        return Decision()
    before = lending.loan_of(live)
    borrowers = {**names.labels(jobs.COMPILE), names.SERVER: server.name}
    decision = lending.decide(
        server,
        before,
        jobs=ctx.cache.labelled(JOB.kind, server.namespace, borrowers),
        job_pods=ctx.cache.labelled(POD.kind, server.namespace, borrowers),
        own_pods=survey.pods_of(ctx, server),
        now=datetime.datetime.now(datetime.UTC),
    )
    if decision.loan != before:
        await _change(ctx, server, live, decision.loan)
        _tell(ctx, server, before, decision.loan)
    return decision


async def _change(ctx: Context, server: TritonServer, live: Object, loan: Loan | None) -> None:
    """Write the loan and the replicas that it leaves in one go: no half of it is ever seen."""
    name = live["metadata"]["name"]
    try:
        answer = await ctx.kube.scale(
            DEPLOYMENT,
            server.namespace,
            name,
            lending.left_to(server, loan),
            annotation=(names.LENT, loan.to_text() if loan is not None else None),
            uid=live["metadata"]["uid"],
        )
    except Conflict as error:
        message = f"Deployment {name} changed while a replica was to be lent or returned"
        raise OutcomeError(Waiting("Replacing", message, after=1.0)) from error
    ctx.cache.put(answer)


def _tell(ctx: Context, server: TritonServer, before: Loan | None, after: Loan | None) -> None:
    """Tell that a replica is back, and the engines concerned; what is lent the status tells."""
    if before is not None and before.stands:
        message = lending.returned(before, after if after is not None and after.uid == before.uid else None)
        ctx.status.tell(server, reason="Returned", message=message)
        log.info(message, extra=about("TritonServer", server.namespace, server.name))
    for loan in filter(None, (before, after)):
        ctx.queue.add(Key(ENGINE.kind, server.namespace, loan.engine))


def loan_for(ctx: Context, engine: Engine, job: str) -> tuple[str, Loan | None]:
    """Return the server that has lent to this Job of an engine, and what; no name without a loan."""
    for live in ctx.cache.labelled(DEPLOYMENT.kind, engine.namespace, names.labels("triton")):
        loan = lending.loan_of(live)
        if loan is not None and (loan.engine, loan.job) == (engine.name, job):
            return live["metadata"]["labels"][names.SERVER], loan
    return "", None
