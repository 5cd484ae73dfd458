"""The closing tables, how to look further, and what helps when something is wrong."""

import itertools
import os
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from demo.cluster import KINDS, Cluster, condition
from demo.command import output
from demo.errors import DemoError
from demo.installation import OPERATOR_NAMESPACE
from demo.milestones import Target
from demo.plans import Plan
from demo.requests import Outcome
from load import Record, analysis

LOG_LINES = 30
LONG_ENOUGH_MS = 0.05


def stages_table(stages: Sequence[tuple[str, float, float]], *, title: str) -> Table:
    """Return when each stage was reached."""
    table = Table("stage", title=title, title_justify="left")
    table.add_column("at second", justify="right")
    table.add_column("after the one before", justify="right")
    for name, second, after in stages:
        table.add_row(name, f"{second:.1f}", f"{after:.1f}")
    return table


def steps_table(steps: Sequence[tuple[str, str, float]]) -> Table:
    """Return what the Jobs did, by their own clock."""
    table = Table("Job", "step", title="Inside the Jobs, by their own reports", title_justify="left")
    table.add_column("seconds", justify="right")
    for job, step, seconds in steps:
        table.add_row(job, step, f"{seconds:.2f}")
    return table


def requests_table(outcomes: Sequence[Outcome]) -> Table:
    """Return how the requests went."""
    table = Table("to", "over", title="Requests, one after the other", title_justify="left")
    for heading in ("sent", "right", "largest error", "p50 ms", "p99 ms"):
        table.add_column(heading, justify="right")
    for outcome in outcomes:
        table.add_row(
            outcome.endpoint,
            outcome.protocol,
            str(outcome.sent),
            str(outcome.right),
            f"{outcome.largest_error:.1e}",
            f"{outcome.percentile(0.5):.1f}",
            f"{outcome.percentile(0.99):.1f}",
        )
    return table


def traffic_table(records: Sequence[Record]) -> Table:
    """Return how the requests of a load went, by the kind of client."""
    title = "Requests while version 2 came and went; none was repeated"
    table = Table("client", title=title, title_justify="left")
    for heading in ("sent", "failed", "right", "from 1", "from 2", "p50 ms", "p99 ms"):
        table.add_column(heading, justify="right")
    for name, found in sorted(analysis.by_stream(records).items()):
        table.add_row(name, *_traffic(found))
    table.add_section()
    table.add_row("all", *_traffic(records))
    return table


def _traffic(records: Sequence[Record]) -> Sequence[str]:
    found = analysis.summary(records)
    counts = (found.sent, found.failed, found.sent - found.failed - found.wrong)
    versions = (found.versions.get(number, 0) for number in (1, 2))
    return [*map(str, (*counts, *versions)), *(f"{1000 * each:.1f}" for each in (found.p50, found.p99))]


def plans_table(plans: Sequence[Plan]) -> Table:
    """Return the TensorRT plans that were compiled."""
    title = "One model, a TensorRT plan for each GPU type; seconds are TensorRT's own"
    table = Table("engine", "target", "TensorRT", "precision", title=title, title_justify="left")
    for heading in ("size", "seconds", "compiled"):
        table.add_column(heading, justify="right")
    for plan in plans:
        table.add_row(
            *(plan.engine, plan.target, plan.tensorrt, plan.precision),
            f"{plan.size_bytes / 1024:.0f} KiB",
            f"{plan.compiler_seconds:.2f}",
            "now" if plan.is_new else "earlier",
        )
    return table


def history(namespace: str, model: str) -> str:
    """Return what kubectl says under `History` of a model's status."""
    described = output(["kubectl", "describe", "--namespace", namespace, "tmodel", model])
    lines = iter(described.splitlines())
    found = list(itertools.takewhile(_is_below_history, itertools.dropwhile(_is_before_history, lines)))
    return "\n".join(["Status:", *found])


def _is_before_history(line: str) -> bool:
    return line != "  History:"


def _is_below_history(line: str) -> bool:
    return line == "  History:" or line.startswith("    ")


def look_further(console: Console, target: Target, *, local: bool) -> None:
    """Say what can be typed next; the cluster stays up."""
    space = f"-n {target.namespace}"
    console.print("\nThe cluster stays up. To look further:", style="bold")
    if local:
        console.print('  eval "$(.venv/bin/python hack/localcluster up)"   # kubectl and helm in PATH')
        console.print(f"  # or: export KUBECONFIG={os.environ.get('KUBECONFIG', '')}", soft_wrap=True)
    for command in (
        f"kubectl get {space} tmodel,tserver,trepo,tengine,pods",
        f"kubectl describe {space} tmodel {target.model}",
        "kubectl explain inferencemodel.spec.versions",
        f"kubectl logs -n {OPERATOR_NAMESPACE} --selector app.kubernetes.io/name=triton-operator",
        f"kubectl scale {space} tserver {target.server} --replicas=1",
        "make demo-down     # removes what the demo installed",
        *(["make cluster-down  # removes the cluster"] if local else []),
    ):
        console.print(f"  {command}", soft_wrap=True, highlight=False)


def diagnose(console: Console, cluster: Cluster, namespace: str) -> None:
    """Print the conditions of all objects, the pods and the operator's last words."""
    snapshot = cluster.snapshot(namespace)
    console.print("\nConditions when it was given up:", style="bold")
    for kind in KINDS:
        for obj in snapshot.of(kind) or []:
            for type_ in ("Ready", "Reconciling", "Stalled"):
                found = condition(obj, type_)
                words = f"{found.get('status', '-')} {found.get('reason', '')}: {found.get('message', '')}"
                console.print(f"  {kind}/{obj['metadata']['name']} {type_}={words}", soft_wrap=True)
        if not snapshot.of(kind):
            console.print(f"  {kind}: none")
    selector = ["--selector", "app.kubernetes.io/name=triton-operator", "--tail", str(LOG_LINES)]
    for title, command in (
        ("Pods", ["kubectl", "get", "pods", "--namespace", namespace, "--output", "wide"]),
        ("Pods of the operator", ["kubectl", "get", "pods", "--namespace", OPERATOR_NAMESPACE]),
        ("The operator's last lines", ["kubectl", "logs", "--namespace", OPERATOR_NAMESPACE, *selector]),
    ):
        console.print(f"\n{title}:", style="bold")
        try:
            console.print(output(command).rstrip(), soft_wrap=True, highlight=False, markup=False)
        except DemoError as error:
            console.print(f"  {error}", soft_wrap=True, markup=False)
