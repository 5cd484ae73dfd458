from __future__ import annotations

import asyncio
import copy
from typing import Any, cast

import pytest
from tests.builders import a_model
from tests.observed import stored

from triton_operator.clients.kube import INFERENCE_MODEL, Kube
from triton_operator.controllers import status as module
from triton_operator.controllers.cache import Cache
from triton_operator.controllers.queue import Key
from triton_operator.controllers.status import PASSING_SECONDS, StatusWriter
from triton_operator.plan.outcome import Outcome, Ready, Waiting
from triton_operator.resources.inference_model import InferenceModel

Object = dict[str, Any]

MODEL = a_model("model").with_version(1, "pvc://s/1.onnx")
LOADING, HALF, SERVED = Waiting("Loading", "0/2"), Waiting("Loading", "1/2"), Ready("Served", "2/2")


class MemoryKube:
    """An API server with one object, which is served like the real one answers a write of a status."""

    def __init__(self, obj: Object) -> None:
        self.object = obj
        self.written: list[str] = []
        self.events: list[str] = []

    async def apply_status(
        self, _kind: object, _namespace: str, _name: str, status: Object, *, uid: str
    ) -> Object:
        assert uid == self.object["metadata"]["uid"]
        self.object = copy.deepcopy(self.object) | {"status": status}
        self.object["metadata"]["resourceVersion"] = str(int(self.object["metadata"]["resourceVersion"]) + 1)
        self.written.append(message_in(self.object))
        return self.object

    async def create(self, _kind: object, event: Object) -> Object:
        self.events.append(event["note"])
        return event


class Stand:
    """A writer, what it writes to, and a clock."""

    def __init__(self) -> None:
        self.kube = MemoryKube(stored(MODEL))
        self.cache = Cache()
        self.cache.put(self.kube.object)
        self.now = 0.0
        self.again: list[tuple[Key, float]] = []
        self.writer = StatusWriter(
            cast("Kube", self.kube),
            self.cache,
            instance="test",
            look_again=lambda key, seconds: self.again.append((key, seconds)),
            clock=lambda: self.now,
        )

    async def write(self, outcome: Outcome, *, at: float) -> bool:
        self.now = at
        model = self.cache.read(InferenceModel, *self.place)
        assert model is not None
        return await self.writer.write(INFERENCE_MODEL, model, outcome)

    @property
    def place(self) -> tuple[str, str]:
        metadata = self.kube.object["metadata"]
        return metadata["namespace"], metadata["name"]

    @property
    def known(self) -> str:
        found = self.cache.get("InferenceModel", *self.place)
        assert found is not None
        return message_in(found)


def message_in(obj: Object) -> str:
    return next(c["message"] for c in obj["status"]["conditions"] if c["type"] == "Ready")


@pytest.fixture
async def stand() -> Stand:
    made = Stand()
    assert await made.write(LOADING, at=0.0)  # the first word about an object is never held back
    assert made.kube.written == ["0/2"]
    return made


async def test_how_far_things_are_is_known_here_at_once_and_written_a_moment_later(stand: Stand) -> None:
    assert not await stand.write(HALF, at=5.0)
    assert (stand.kube.written, stand.known) == (["0/2"], "1/2")
    assert stand.again == [(Key("InferenceModel", *stand.place), PASSING_SECONDS)]
    await stand.write(HALF, at=5.0 + PASSING_SECONDS)
    assert stand.kube.written == ["0/2", "1/2"]
    assert stand.cache.draft("InferenceModel", *stand.place) is None


async def test_of_several_steps_the_last_is_written_when_the_first_is_due(stand: Stand) -> None:
    for step in range(4):
        await stand.write(Waiting("Loading", f"step {step}"), at=5.0 + step * PASSING_SECONDS / 3)
    assert stand.kube.written == ["0/2", "step 3"]


async def test_a_condition_that_turns_is_written_at_once_and_takes_along_what_was_held_back(
    stand: Stand,
) -> None:
    await stand.write(HALF, at=5.0)
    assert await stand.write(SERVED, at=5.1)
    assert (stand.kube.written, stand.known) == (["0/2", "2/2"], "2/2")


async def test_a_spec_that_was_not_spoken_of_yet_gets_its_word_at_once(stand: Stand) -> None:
    changed = copy.deepcopy(stand.kube.object)
    changed["metadata"] |= {"generation": changed["metadata"]["generation"] + 1, "resourceVersion": "100"}
    stand.kube.object = changed
    stand.cache.put(changed)
    await stand.write(HALF, at=5.0)
    assert stand.kube.written == ["0/2", "1/2"]


async def test_what_the_watch_brings_meanwhile_does_not_hide_what_is_held_back(stand: Stand) -> None:
    await stand.write(HALF, at=5.0)
    labelled = copy.deepcopy(stand.kube.object)
    labelled["metadata"] |= {"labels": {"a": "b"}, "resourceVersion": "100"}
    stand.cache.put(labelled)
    assert stand.known == "1/2"
    stand.cache.remove(labelled)
    assert stand.cache.draft("InferenceModel", *stand.place) is None


async def test_what_has_passed_before_it_was_written_never_is(stand: Stand) -> None:
    await stand.write(HALF, at=5.0)
    await stand.write(LOADING, at=5.1)
    assert stand.cache.draft("InferenceModel", *stand.place) is None
    await stand.write(LOADING, at=9.0)
    assert (stand.kube.written, stand.known) == (["0/2"], "0/2")


async def test_events_are_told_in_their_order_and_all_of_them_before_the_end(stand: Stand) -> None:
    model = stand.cache.read(InferenceModel, *stand.place)
    assert model is not None
    for number in range(50):
        stand.writer.tell(model, reason="Told", message=str(number))
    await stand.writer.close()
    assert stand.kube.events == ["0/2", *map(str, range(50))]


async def test_an_event_that_fails_unexpectedly_does_not_silence_those_after_it(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = stand.cache.read(InferenceModel, *stand.place)
    assert model is not None
    monkeypatch.setattr(module, "EVENT_SECONDS", 0.001)
    create = stand.kube.create

    async def broken(*_: object) -> Object:
        raise RuntimeError("not what a client should raise")

    monkeypatch.setattr(stand.kube, "create", broken)
    stand.writer.tell(model, reason="Told", message="lost")
    await asyncio.sleep(1.0)  # also that of the fixture, which has waited since
    monkeypatch.setattr(stand.kube, "create", create)
    stand.writer.tell(model, reason="Told", message="told")
    await stand.writer.close()
    assert stand.kube.events[-1] == "told"
