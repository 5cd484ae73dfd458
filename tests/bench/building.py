"""What a build costs beyond the compiler: a compile Engine beside a bare Job of the same image."""

from __future__ import annotations

import dataclasses
import os
import secrets
import statistics
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from tests.bench.finding import WIDTH, Finding, table
from tests.bench.watching import Watch
from tests.builders import a_model, a_repository
from tests.e2e.cluster import connected
from tests.e2e.installation import install
from tests.e2e.stage import Stage, remove_leftovers
from tests.told import condition_of

from triton_operator.plan import attempts, names, podspec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.e2e.cluster import Cluster

Object = dict[str, Any]

MOST = 1.5
"""A build's own share may be so many times a bare Job."""
COMPILER = "tensorrt-rtx"
"""Image of a compiler that needs no GPU."""
PRODUCT = "NVIDIA-A10"
NODES = {"nvidia.com/gpu.product": PRODUCT}
TOLERATIONS = [{"key": "nvidia.com/gpu", "operator": "Exists"}]
RESOURCES = {"requests": {"cpu": "50m", "memory": "256Mi"}}


@dataclasses.dataclass(frozen=True)
class Built:
    """Seconds of one build by step, and what the compiler took of `compiling`."""

    creating: float
    """From the Engine to its Job."""
    compiling: float
    """From the Job to its end."""
    noticing: float
    """From that to the Engine's Ready."""
    compiler: float

    @property
    def overhead(self) -> float:
        """Return all but what the compiler took."""
        return self.creating + self.compiling + self.noticing - self.compiler


def main(rounds: int) -> int:
    """Build and run bare Jobs in turns, print the table, and return the exit status."""
    if os.environ.get("CLUSTER", "local") != "local":
        print("error: bench-build takes GPUs that are none: it needs CLUSTER=local", file=sys.stderr)
        return 1
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    with connected() as cluster:
        remove_leftovers()
        stage = Stage.create(cluster, install(cluster), f"bench-{secrets.token_hex(3)}")
        try:
            finding = _measured(console, stage, rounds)
        finally:
            stage.leave()
    console.print(table([finding], title="make bench-build"))
    return 0 if finding.ok else 1


def judged(builds: Sequence[Built], bare: Sequence[float]) -> Finding:
    """Return the finding about so many builds and bare Jobs: their medians decide."""
    own, job = statistics.median(build.overhead for build in builds), statistics.median(bare)
    ratio = own / job
    steps = {
        name: statistics.median(getattr(build, name) for build in builds)
        for name in ("creating", "compiling", "noticing", "compiler")
    }
    measured = (
        f"{ratio:.2f} times ({own:.2f} s of {len(builds)} builds, {job:.2f} s of {len(bare)} bare Jobs)\n"
        f"Engine → Job {steps['creating']:.2f} s, Job → end {steps['compiling']:.2f} s (compiler "
        f"{steps['compiler']:.2f} s), end → Ready {steps['noticing']:.2f} s"
    )
    missed = (f"{ratio:.2f} is more than {MOST}",) if ratio > MOST else ()
    must = f"created → Ready less the compiler's own seconds: at most {MOST} times created → complete"
    return Finding("a build beside a bare Job of the same image", must, measured, missed)


def _measured(console: Console, stage: Stage, rounds: int) -> Finding:
    _set_up(stage)
    uri = stage.put_model("model.onnx", 2.0)
    sha256 = stage.sha256("model.onnx")
    builds, bare = [], []
    engines, jobs = Watch(stage.kube, "Engine"), Watch(stage.kube, "Job")
    for number in range(rounds + 1):
        job = _run_bare(stage, jobs, number)
        build = _build(stage, engines, jobs, number, uri=uri, sha256=sha256)
        if number == 0:
            continue  # it prepared the model, and pulled the images
        bare.append(job)
        builds.append(build)
        console.print(f"» {number}: {build.overhead:.2f} s of a build, {job:.2f} s of a bare Job")
    return judged(builds, bare)


def _set_up(stage: Stage) -> None:
    """Make a server that lends its settings and has no pods: all GPUs are for the builds."""
    server = stage.a_server("a10").with_replicas(0)
    server = server.with_spec(gpu={}, nodeSelector=NODES, tolerations=TOLERATIONS)
    server = server.with_spec(builds={"resources": RESOURCES}, compilerImage=_compiler(stage.cluster))
    stage.apply(a_repository().with_spec(storage={"size": "64Mi"}), server)
    stage.add_sources()


def _compiler(cluster: Cluster) -> str:
    assert COMPILER in cluster.images, f"no image {COMPILER}: it must be built, as `make images` does"
    return cluster.images[COMPILER]


def _build(stage: Stage, engines: Watch, jobs: Watch, number: int, *, uri: str, sha256: str) -> Built:
    """Have one engine compiled from a model that is prepared already: the batch size makes it another."""
    name = f"build-{number}"
    model = a_model(name).with_spec(backend="TensorRT").with_servers("a10")
    stage.apply(model.with_version(1, uri, sha256=sha256, max_batch_size=number + 1))

    def is_it(engine: Object) -> bool:
        return engine["spec"].get("compile", {}).get("maxBatchSize") == number + 1

    created, engine = engines.first(is_it)
    own = {names.ENGINE: engine["metadata"]["name"]}

    def of_it(job: Object) -> bool:
        return own.items() <= (job["metadata"].get("labels") or {}).items()

    started, _ = jobs.first(of_it)
    ended, _ = jobs.first(lambda job: of_it(job) and attempts.end_of(job) is not None)
    ready, _ = engines.first(lambda each: is_it(each) and condition_of(each, "Ready").get("status") == "True")
    (pod,) = stage.kube.list("Pod", f"{names.ENGINE}={engine['metadata']['name']}")
    report = attempts.report_of([pod])
    assert report is not None, pod["status"]
    return Built(started - created, ended - started, ready - ended, report.compiler_seconds)


def _run_bare(stage: Stage, jobs: Watch, number: int) -> float:
    """Run a Job that takes a GPU and does nothing, and return its seconds."""
    name = f"bare-{number}"
    container = {
        "name": "bare",
        "image": _compiler(stage.cluster),
        "command": ["true"],
        "resources": RESOURCES | {"limits": {"nvidia.com/gpu": "1"}},
        "securityContext": podspec.CONTAINER_SECURITY,
    }
    pod = {
        "automountServiceAccountToken": False,
        "restartPolicy": "Never",
        "securityContext": podspec.pod_security(),
        "nodeSelector": NODES,
        "tolerations": TOLERATIONS,
        "containers": [container],
    }
    spec = {"backoffLimit": 0, "template": {"spec": pod}}
    stage.kube.create({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec})
    created, _ = jobs.first(lambda job: job["metadata"]["name"] == name)
    ended, job = jobs.first(lambda each: each["metadata"]["name"] == name and bool(attempts.end_of(each)))
    assert attempts.condition(job, "Complete"), job["status"]
    return ended - created
