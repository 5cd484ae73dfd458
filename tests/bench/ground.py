"""Two real pods that serve one model, the load on them, and the way back to where each row begins."""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
import time
from typing import TYPE_CHECKING, Any

from tests.bench.finding import ENOUGH_SECONDS, Change
from tests.builders import a_model, a_repository, a_server
from tests.e2e.cluster import kubectl
from tests.e2e.stage import GRPC, HTTP, RELEASE, Stage
from tests.onnx_models import (
    write_memory_hungry,
    write_multiply,
    write_not_a_number,
    write_random,
    write_slow,
)
from tests.told import expect_condition, version_of

from load import Plan, Run, Stream, mixed, multiply, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from tests.builders import ModelBuilder
    from tests.e2e.cluster import Cluster
    from tests.e2e.installation import Installation

    Object = dict[str, Any]

MODEL = "text"
SERVER = "default"
WIDTH = 64
"""Numbers in an input: enough for random answers to be wrong for certain."""
PODS = 2
MEMORY = "1Gi"
"""Limit of a Triton container: less than the model needs that is to end it."""
BEFORE_SECONDS = 5.0
"""Load before the change."""
LONG_SECONDS = 120

OLD, NEW, RANDOM, NOT_A_NUMBER, HUNGRY, SLOW = 1, 2, 3, 4, 5, 6
AGAIN = range(11, 31)
"""Numbers for the file of NEW: its engine lies in the store, and they were never tried."""
FACTORS = {OLD: 2.0, **dict.fromkeys((NEW, *AGAIN), 3.0)}
SOURCES: Mapping[int, Callable[[Path], Path]] = {
    OLD: lambda path: write_multiply(path, FACTORS[OLD], size=WIDTH),
    NEW: lambda path: write_multiply(path, FACTORS[NEW], size=WIDTH),
    RANDOM: lambda path: write_random(path, size=WIDTH),
    NOT_A_NUMBER: lambda path: write_not_a_number(path, size=WIDTH),
    HUNGRY: lambda path: write_memory_hungry(path, size=WIDTH),
    SLOW: lambda path: write_slow(path, size=WIDTH),
}
"""What each version number stands for."""


@dataclasses.dataclass(frozen=True)
class Options:
    """What the command line says."""

    rate: float
    seconds: float
    rounds: int
    rows: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Ground:
    """A namespace with sources, a server of two pods, and a model."""

    stage: Stage
    options: Options
    sources: Mapping[int, tuple[str, str]]
    """URI and digest of each version."""

    @classmethod
    def prepare(cls, cluster: Cluster, installation: Installation, options: Options) -> Ground:
        """Make the namespace and what stands in it."""
        stage = Stage.create(cluster, installation, f"bench-{secrets.token_hex(3)}")
        stage.apply(a_repository().with_spec(storage={"size": "64Mi"}))
        resources = {"requests": {"cpu": "500m", "memory": "128Mi"}, "limits": {"memory": MEMORY}}
        server = a_server(SERVER).with_replicas(PODS).with_spec(release=RELEASE, resources=resources)
        stage.apply(server.with_spec(image=cluster.images["triton-cpu"]))
        stage.add_sources()
        names = {number: f"{MODEL}/{number}.onnx" for number in SOURCES}
        uris = {number: stage.put_written(names[number], write) for number, write in SOURCES.items()}
        sources = {number: (uris[number], stage.sha256(names[number])) for number in SOURCES}
        return cls(stage=stage, options=options, sources=sources)

    # what stands there

    def model(self, *versions: int, name: str = MODEL, **spec: Any) -> ModelBuilder:
        """Return a model with some of the versions; keywords are further fields of its spec."""
        made = a_model(name).with_spec(**spec)
        for number in versions:
            uri, sha256 = self.sources[NEW if number in AGAIN else number]
            made = made.with_version(number, uri, sha256=sha256)
        return made

    def serve(self, *versions: int, name: str = MODEL, **spec: Any) -> None:
        """Have these versions of a model served, and no others, by all pods."""
        self.stage.apply(self.model(*versions, name=name, **spec))
        self.wait_served(*versions, name=name)

    def wait_served(self, *versions: int, name: str = MODEL) -> None:
        """Wait until all pods serve these versions, and no others."""
        listed = ",".join(map(str, versions))

        def served() -> None:
            found = expect_condition(self.stage.kube, "InferenceModel", name, "Ready", "True")
            assert found["status"]["versionsServing"] == listed, found["status"]
            going = {"Retiring", "Candidate"} & {each["state"] for each in found["status"]["versions"]}
            assert not going, found["status"]

        self.stage.eventually(served, within=LONG_SECONDS)

    def version(self, number: int) -> Object:
        """Return what the status says of a version."""
        return version_of(self.stage.kube.get("InferenceModel", MODEL), number)

    def server(self) -> Object:
        """Return the TritonServer."""
        return self.stage.kube.get("TritonServer", SERVER)

    def deployment(self) -> Object:
        """Return the Deployment of its pods."""
        return self.stage.kube.get("Deployment", f"triton-{SERVER}")

    def all_pods(self) -> list[Object]:
        """Return the pods, with those on their way out."""
        return self.stage.kube.list("Pod", "app.kubernetes.io/component=triton")

    def wait_pods(self, count: int = PODS, *, image: str | None = None) -> None:
        """Wait until there are so many pods, ready all of them, and of this image."""

        def there() -> None:
            pods = self.all_pods()
            assert len(pods) == count, [pod["metadata"]["name"] for pod in pods]
            assert all(is_ready(pod) for pod in pods)
            images = {pod["spec"]["containers"][0]["image"] for pod in pods}
            assert image is None or images == {image}, images

        self.stage.eventually(there, within=LONG_SECONDS)

    def return_to(self, *versions: int) -> None:
        """Have two pods serve these versions with nothing special, whatever was before."""
        if not self.stage.installation.pods():
            self.stage.installation.scale(1)
        spec = self.server()["spec"]
        if spec["replicas"] != PODS or spec.get("loads"):
            body = {"spec": {"replicas": PODS, "loads": None}}
            self.stage.kube.patch("TritonServer", SERVER, body)
        self.serve(*versions)
        self.wait_pods()

    @contextlib.contextmanager
    def operator_stopped(self) -> Iterator[None]:
        """Have no operator while the context is open."""
        self.stage.installation.scale(0)
        try:
            yield
        finally:
            self.stage.installation.scale(1)

    # the load

    def service_streams(self) -> list[Stream]:
        """Return streams of every kind to the Service."""
        address = self.stage.kube.get("Service", f"triton-{SERVER}")["spec"]["clusterIP"]
        return list(mixed(http=f"{address}:{HTTP}", grpc=f"{address}:{GRPC}", weight=2))

    def pod_streams(self, pods: Sequence[Object]) -> list[Stream]:
        """Return streams of every kind straight to pods; a stream's name begins with the pod's."""
        return [stream for pod in pods for stream in _to_pod(pod)]

    @contextlib.contextmanager
    def load(self, streams: Sequence[Stream] | None = None, *, name: str = MODEL) -> Iterator[Run]:
        """Have requests come in while the context is open; by default to the Service and to every pod."""
        chosen = streams or [*self.service_streams(), *self.pod_streams(self.stage.pods())]
        question = multiply(name, FACTORS, size=WIDTH)
        with running(Plan(question, chosen, rate=self.options.rate)) as run:
            yield run

    def under_load(self, act: Callable[[], None], *, streams: Sequence[Stream] | None = None) -> Change:
        """Change something while requests come in, and return what became of them."""
        with self.load(streams) as run:
            time.sleep(BEFORE_SECONDS)
            began = time.monotonic()
            act()
            ended = time.monotonic()
            time.sleep(max(ENOUGH_SECONDS, run.began + self.options.seconds - ended))
            return Change(run.stop(), began=began, ended=ended, rate=self.options.rate)


def is_ready(pod: Object) -> bool:
    """Tell whether a pod is ready."""
    conditions = {each["type"]: each["status"] for each in pod["status"].get("conditions") or []}
    return conditions.get("Ready") == "True"


def scale(ground: Ground, target: str, replicas: int) -> None:
    """Scale what `kubectl scale` can scale."""
    kubectl("--namespace", ground.stage.namespace, "scale", target, f"--replicas={replicas}")


def _to_pod(pod: Object) -> Sequence[Stream]:
    address = pod["status"]["podIP"]
    return mixed(http=f"{address}:{HTTP}", grpc=f"{address}:{GRPC}", prefix=f"{pod['metadata']['name']}: ")
