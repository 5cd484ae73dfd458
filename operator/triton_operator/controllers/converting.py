"""What an engine of OpenVINO waits for, and the work on it: its origin alone."""

from __future__ import annotations

from triton_operator.controllers import compiling
from triton_operator.controllers.attempts import Work
from triton_operator.controllers.context import Context
from triton_operator.plan import jobs
from triton_operator.plan.outcome import Outcome
from triton_operator.resources.engine import Engine
from triton_operator.resources.model_repository import ModelRepository


def work(ctx: Context, engine: Engine, repository: ModelRepository) -> Work | Outcome:
    """Return how an engine is converted, or what must be there before."""
    return compiling.before(ctx, engine, repository) or Work(
        owner=engine,
        labels=jobs.labels_of(engine),
        job=lambda attempt: jobs.convert(
            engine=engine, attempt=attempt, repository=repository, images=ctx.images(repository)
        ),
    )
