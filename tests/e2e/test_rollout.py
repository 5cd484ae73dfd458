"""Versions and settings change while requests come in: nobody notices but by the answers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import tritonclient.grpc
from tests.builders import a_model
from tests.e2e.stage import GRPC
from tests.e2e.traffic import (
    ROLLBACK_SECONDS,
    answered_everywhere,
    assert_no_way_back,
    assert_unnoticed,
    enough,
    everywhere,
    settled,
    traffic,
)
from tests.onnx_models import write_random

from load import analysis, multiply

if TYPE_CHECKING:
    from tests.e2e.stage import Stage

PROTOCOLS = ("http", "grpc")


def test_second_version_comes_and_goes_without_a_lost_request(guest: Stage) -> None:
    model = a_model("switch").with_version(1, guest.put_model("switch-1.onnx", 2.0))
    both = model.with_version(2, guest.put_model("switch-2.onnx", 3.0))
    guest.apply(model)
    guest.wait_ready("InferenceModel", "switch")
    with traffic(guest, multiply("switch", {1: 2.0, 2: 3.0}), targets=everywhere(guest)) as run:
        guest.apply(both)
        guest.wait_ready("InferenceModel", "switch")
        guest.eventually(lambda: answered_everywhere(run, 2))
        assert guest.kube.get("InferenceModel", "switch")["status"]["versionsServing"] == "1,2"
        before_removal = time.monotonic()
        guest.apply(model)
        removed = time.monotonic()
        guest.eventually(lambda: is_removed(guest, "switch", 2))
        guest.wait_ready("InferenceModel", "switch")
        guest.eventually(lambda: settled(run))
        records = run.stop()
    assert_unnoticed(records)
    assert_no_way_back(analysis.scheduled_within(records, begin=0, end=before_removal))
    late = [r for r in analysis.answered_by(records, 2) if r.started > removed + ROLLBACK_SECONDS]
    assert late == []
    turns = guest.turns("switch", 2)
    # another test may have had the same engine built, and a version may retire too fast to be seen
    told = [each for each in turns if each not in ("Building", "Retiring")]
    assert told == ["Candidate", "Promoted", "Served", "Removed"]
    guest.wait_events("switch", *turns)
    assert set(guest.served_factors("switch").values()) == {2.0}


def is_removed(stage: Stage, model: str, number: int) -> None:
    assert stage.version_of(model, number)["state"] == "Removed"


def test_version_that_answers_otherwise_than_its_source_is_taken_back(guest: Stage) -> None:
    model = a_model("doubtful").with_version(1, guest.put_model("doubtful-1.onnx", 2.0))
    guest.apply(model)
    guest.wait_ready("InferenceModel", "doubtful")
    with traffic(guest, multiply("doubtful", {1: 2.0}), targets=everywhere(guest)) as run:
        guest.apply(model.with_version(2, guest.put_written("doubtful-2.onnx", write_random)))
        guest.wait_stalled("InferenceModel", "doubtful", "WrongAnswers")
        guest.eventually(lambda: nothing_left_of_candidate(guest, "doubtful"))
        records = run.stop()
    assert_unnoticed(records)  # version 2 is none whose answers would be right
    version = guest.version_of("doubtful", 2)
    assert (version["state"], version["pods"]) == ("Failed", "0/2")
    assert version["checks"][0]["reason"] == "WrongAnswers"
    assert float(version["checks"][0]["cosine"]) < 0.99
    assert float(version["checks"][0]["maxError"]) > 1
    assert guest.turns("doubtful", 2) == ["Building", "Candidate", "WrongAnswers"]
    guest.wait_events("doubtful", "WrongAnswers")
    assert guest.version_of("doubtful")["state"] == "Promoted"


def nothing_left_of_candidate(stage: Stage, model: str) -> None:
    assert not any(f"{model}.candidate" in path for path in stage.on_volume(below="servers"))
    for pod in stage.pod_names():
        with stage.reached(f"pod/{pod}", GRPC) as addresses:
            client = tritonclient.grpc.InferenceServerClient(addresses[GRPC])
            assert not client.is_model_ready(f"{model}.candidate")
            client.close()


def test_labels_change_under_load(guest: Stage) -> None:
    model = a_model("named").with_version(1, guest.put_model("named.onnx", 2.0))
    guest.apply(model.with_labels(y=["a", "b", "c", "old"]))
    guest.wait_ready("InferenceModel", "named")
    assert labels_of(guest, "named") == {"old"}
    with traffic(guest, multiply("named", {1: 2.0}), targets=everywhere(guest)) as run:
        guest.apply(model.with_labels(y=["a", "b", "c", "new"]))
        guest.wait_ready("InferenceModel", "named")
        assert labels_of(guest, "named") == {"new"}
        enough(run)
        records = run.stop()
    assert_unnoticed(records)
    reloading = guest.wait_events("named", "Reloading")["Reloading"]
    assert any(message.startswith("labels changed") for message in reloading)


def labels_of(stage: Stage, model: str) -> set[str]:
    return {
        stage.best_label(pod, model, protocol=protocol) for pod in stage.pod_names() for protocol in PROTOCOLS
    }


def test_suspended_model_is_left_as_it_is(guest: Stage) -> None:
    model = a_model("held").with_version(1, guest.put_model("held-1.onnx", 2.0))
    both = model.with_version(2, guest.put_model("held-2.onnx", 3.0))
    guest.apply(model)
    guest.wait_ready("InferenceModel", "held")
    guest.apply(both.suspended())
    guest.wait_condition("InferenceModel", "held", "Ready", "True", reason="Suspended")
    pod = guest.pod_names()[0]
    guest.unload(pod, "held")
    guest.apply(a_model("other").with_version(1, guest.put_model("other.onnx", 7.0)))
    guest.wait_ready("InferenceModel", "other")  # all pods were looked at meanwhile
    assert guest.served_factors("held").pop(pod) is None
    assert [each["number"] for each in guest.kube.get("InferenceModel", "held")["status"]["versions"]] == [1]
    guest.apply(both)
    guest.wait_ready("InferenceModel", "held")
    assert set(guest.served_factors("held").values()) == {3.0}
