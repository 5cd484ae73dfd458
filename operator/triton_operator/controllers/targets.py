"""The hardware of a server: what nodes and spec say, and what is remembered of it."""

from __future__ import annotations

import dataclasses

from triton_operator.clients.kube import DEPLOYMENT, NODE
from triton_operator.controllers.context import Context
from triton_operator.plan import names, target, triton_workload
from triton_operator.plan.nodes import Node
from triton_operator.plan.outcome import Outcome, Ready
from triton_operator.plan.target import Resolution
from triton_operator.resources.gpu import TargetStatus
from triton_operator.resources.triton_server import TritonServer


def resolve(ctx: Context, server: TritonServer) -> Resolution | Outcome | None:
    """Return the target of a server with GPUs, or why it has none yet; None for a server without GPUs."""
    gpu = server.spec.gpu
    if gpu is None:
        return None
    nodes = map(Node.parse, ctx.cache.all(NODE.kind)) if ctx.reads_nodes else None
    return target.resolve(server, gpu, nodes, known=_known(ctx, server))


def status(ctx: Context, server: TritonServer, found: Resolution | Outcome | None) -> TargetStatus | None:
    """Return what the status says of the hardware; what was known stays while nothing else is."""
    if server.spec.gpu is None:
        return target.cpu()
    return found.status(server.spec.gpu) if isinstance(found, Resolution) else _known(ctx, server)


def told(server: TritonServer, found: Resolution | None, outcome: Outcome) -> Outcome:
    """Return the outcome of a server with what is to be said of its target."""
    if found is None:
        return outcome
    if found.problem is not None:
        return dataclasses.replace(found.problem, message=f"{found.problem.message}; {outcome.message}")
    if not isinstance(outcome, Ready):
        return outcome
    here = f"target {target.describe(found.target)}, {found.origin}"
    shared = target.no_build(server, found)
    parts = [outcome.message, here, *([shared.message] if shared is not None else [])]
    return dataclasses.replace(outcome, message="; ".join(parts))


def _known(ctx: Context, server: TritonServer) -> TargetStatus | None:
    """Return the hardware that the server had, as its status says, or its Deployment when that got lost."""
    known = server.status.target
    if known is not None and known.target is not None:
        return known
    name = names.deployment_of_server(server.name)
    return triton_workload.remembered_target(ctx.cache.get(DEPLOYMENT.kind, server.namespace, name))
