"""Open-loop load on Triton, from a process of its own.

Requests begin by a schedule, whatever becomes of those before, and none is ever repeated:

    question = multiply("text", {1: 2.0, 2: 3.0})
    plan = Plan(question=question, streams=mixed(http="10.96.0.7:8000", grpc="10.96.0.7:8001"))
    with running(plan) as run:
        ...                          # change something
        records = run.stop()
    assert not analysis.failures(records)
"""

from load import analysis
from load.plan import Plan, Protocol, Question, Stream, mixed, multiply
from load.record import Outcome, Record
from load.run import LoadError, Run, running

__all__ = [
    "LoadError",
    "Outcome",
    "Plan",
    "Protocol",
    "Question",
    "Record",
    "Run",
    "Stream",
    "analysis",
    "mixed",
    "multiply",
    "running",
]
