"""The story that every run plays: two models, a second version, another configuration, back, and away."""

from __future__ import annotations

import dataclasses
import datetime
from typing import TYPE_CHECKING

from tests.builders import a_claim, a_model, a_repository, a_server
from tests.integration.eventually import eventually
from tests.integration.operator.stage import SOURCES, uri_of
from tests.onnx_models import write_multiply

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.builders import ModelBuilder
    from tests.integration.operator.stage import Stage

REPLICAS = 2
FIRST, SECOND, OTHER = 2.0, 5.0, 3.0
"""What version 1 and version 2 of model `one` multiply by, and version 1 of model `two`."""

FACTORS = {"one-1.onnx": FIRST, "one-2.onnx": SECOND, "two-1.onnx": OTHER}
SERVING = {"dynamicBatching": {"maxQueueDelayMicroseconds": 100}}
LONG_AGO = "2020-01-01T00:00:00Z"


@dataclasses.dataclass(frozen=True)
class Step:
    """One thing that a user does, and who may answer clients from then on and after all has settled."""

    name: str
    act: Callable[[Stage], None]
    meanwhile: Mapping[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)
    after: Mapping[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)
    nudge: Callable[[Stage], None] = lambda _stage: None
    """What is done again and again until all has settled: time that passes faster than it does."""
    wait: Callable[[Stage], None] = lambda _stage: None
    """Waits until what the step is for has come about; others wait for the state that it left."""


def _install(stage: Stage) -> None:
    stage.apply(a_claim(SOURCES), a_repository(), a_server().with_replicas(REPLICAS))
    for name, factor in FACTORS.items():
        write_multiply(stage.sources() / name, factor)


def _apply(stage: Stage) -> None:
    stage.apply(_one(stage), a_model("two").with_version(1, uri_of("two-1.onnx")))


def _one(stage: Stage) -> ModelBuilder:
    return a_model("one").with_version(1, uri_of("one-1.onnx"), sha256=stage.sha256("one-1.onnx"))


def _one_and_two(stage: Stage) -> ModelBuilder:
    return _one(stage).with_version(2, uri_of("one-2.onnx"), sha256=stage.sha256("one-2.onnx"))


def _delete(stage: Stage) -> None:
    for name in ("one", "two"):
        stage.kube.delete("InferenceModel", name)
    stage.apply(a_repository().with_retention("0s"))


def _let_engines_age(stage: Stage) -> None:
    """Let engines have been unused for longer than the operator's grace."""
    for engine in stage.kube.list("Engine"):
        since = engine.get("status", {}).get("unusedSince")
        if since is not None and _age(since) < 60:
            name, status = engine["metadata"]["name"], {"unusedSince": LONG_AGO}
            stage.kube.patch("Engine", name, {"status": status}, subresource="status")


def _age(since: str) -> float:
    return (datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(since)).total_seconds()


def _installed(stage: Stage) -> None:
    stage.wait_ready("ModelRepository", "default")


def _served(stage: Stage) -> None:
    for kind, name in (("InferenceModel", "one"), ("InferenceModel", "two"), ("TritonServer", "default")):
        stage.wait_ready(kind, name)


def _gone(stage: Stage) -> None:
    def nothing_is_left() -> None:
        _let_engines_age(stage)
        assert [stage.kube.list(kind) for kind in ("InferenceModel", "Engine", "Job")] == [[], [], []]
        assert list(stage.volume().glob("store/*")) == list(stage.volume().glob("servers/*/*/*")) == []
        assert stage.tritons() == {}

    eventually(nothing_is_left, within=60, because=stage.explain)


STEPS = (
    Step("install", _install, wait=_installed),
    Step("apply", _apply, wait=_served, after={"one": (FIRST,), "two": (OTHER,)}),
    Step(
        "add",
        lambda stage: stage.apply(_one_and_two(stage)),
        meanwhile={"one": (FIRST, SECOND), "two": (OTHER,)},
        after={"one": (SECOND,), "two": (OTHER,)},
        wait=_served,
    ),
    Step(
        "configure",
        lambda stage: stage.apply(_one_and_two(stage).with_spec(serving=SERVING)),
        meanwhile={"one": (SECOND,), "two": (OTHER,)},
        after={"one": (SECOND,), "two": (OTHER,)},
        wait=_served,
    ),
    Step(
        "roll back",
        lambda stage: stage.apply(_one(stage).with_spec(serving=SERVING)),
        meanwhile={"one": (SECOND, FIRST), "two": (OTHER,)},
        after={"one": (FIRST,), "two": (OTHER,)},
        wait=_served,
    ),
    Step("delete", _delete, nudge=_let_engines_age, wait=_gone),
)
