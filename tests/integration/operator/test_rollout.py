"""A new version is tried on one pod before any client reaches it, and loaded by all when it is right."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.builders import a_model
from tests.integration.eventually import eventually
from tests.told import summary, version_of

if TYPE_CHECKING:
    from tests.integration.operator.stage import Stage

CANDIDATE = "steady.candidate"


def test_new_version_is_tried_on_one_pod_and_then_loaded_by_all(stage: Stage) -> None:
    stage.set_up(replicas=2)
    model = stage.serve("steady", 2.0)
    assert {double.counts.loads[CANDIDATE] for double in stage.tritons().values()} == {0}, (
        "the first is tried"
    )
    with stage.asked({"steady": (2.0, 5.0), "steady/1": (2.0,)}):
        stage.apply(model.with_version(2, stage.put_model("2.onnx", 5.0)))
        found = stage.wait_ready("InferenceModel", "steady")
    assert set(stage.served_factors("steady").values()) == {5.0}
    assert found["status"]["versionsServing"] == "1,2"
    second = version_of(found, 2)
    assert (second["state"], second["pods"], second["checks"][0]["reason"]) == (
        "Promoted",
        "2/2",
        "Succeeded",
    )
    assert float(second["checks"][0]["cosine"]) > 0.99
    doubles = stage.tritons().values()
    assert sorted(double.counts.loads[CANDIDATE] for double in doubles) == [0, 1]
    assert [double.counts.loads["steady"] for double in doubles] == [1, 1]
    assert {double.repository.version_loads["steady", 1] for double in doubles} == {1}, "the old one reloaded"
    told = ["Candidate", "Promoted", "Served"]
    assert [reason for number, reason in stage.story("steady") if number == 2][-3:] == told

    def candidate_is_gone() -> None:
        assert not (stage.tree() / CANDIDATE).exists()
        assert [double.repository.ready(CANDIDATE) for double in stage.tritons().values()] == [{}, {}]

    eventually(candidate_is_gone, because=stage.explain)


def test_only_pod_tries_a_candidate_beside_what_it_serves(stage: Stage) -> None:
    stage.set_up()
    model = stage.serve("steady", 2.0)
    with stage.asked({"steady": (2.0, 5.0), "steady/1": (2.0,)}):
        stage.apply(model.with_version(2, stage.put_model("2.onnx", 5.0)))
        stage.wait_ready("InferenceModel", "steady")
    (double,) = stage.tritons().values()
    assert double.counts.loads[CANDIDATE] == 1


def test_several_new_versions_are_tried_one_after_the_other(stage: Stage) -> None:
    stage.set_up()
    model = stage.serve("steady", 2.0)
    for number, factor in ((3, 7.0), (2, 5.0)):
        model = model.with_version(number, stage.put_model(f"{number}.onnx", factor))
    with stage.asked({"steady": (2.0, 5.0, 7.0), "steady/1": (2.0,)}):
        stage.apply(model)
        found = stage.wait_ready("InferenceModel", "steady")
    assert found["status"]["versionsServing"] == "1,2,3"
    (double,) = stage.tritons().values()
    assert double.counts.loads[CANDIDATE] == 2
    story = [each for each in stage.story("steady") if each[1] == "Candidate"]
    assert story == [(2, "Candidate"), (3, "Candidate")]


def test_candidates_of_two_models_are_tried_on_two_pods(stage: Stage) -> None:
    stage.set_up(replicas=2)
    models = [stage.serve(name, 2.0) for name in ("one", "two")]
    for double in stage.tritons().values():
        double.faults.slow_load |= {"one.candidate": 4.0, "two.candidate": 4.0}
    second = stage.put_model("2.onnx", 5.0)
    stage.apply(*(model.with_version(2, second) for model in models))

    def both_are_tried() -> None:
        loads = [
            {name for name in ("one.candidate", "two.candidate") if double.counts.loads[name]}
            for double in stage.tritons().values()
        ]
        assert sorted(map(len, loads)) == [1, 1], loads

    eventually(both_are_tried, because=stage.explain)
    for name in ("one", "two"):
        stage.wait_ready("InferenceModel", name)


def test_status_counts_the_pods_while_they_load(stage: Stage) -> None:
    stage.set_up(replicas=2)
    model = stage.serve("steady", 2.0)
    slow, _ = stage.tritons().values()
    slow.faults.slow_load["steady/2"] = 4.0
    stage.apply(model.with_version(2, stage.put_model("2.onnx", 5.0)))

    def half_way() -> None:
        found = stage.kube.get("InferenceModel", "steady")
        second = version_of(found, 2)
        assert (second.get("state"), second.get("pods")) == ("Promoted", "1/2"), summary(found)
        assert second["reason"] == "Loading"
        assert "servedSince" not in second

    eventually(half_way, because=stage.explain)
    found = stage.wait_ready("InferenceModel", "steady")
    assert version_of(found, 2)["pods"] == "2/2"
    assert version_of(found, 2)["servedSince"]


def test_no_more_pods_load_at_once_than_the_server_says(stage: Stage) -> None:
    stage.set_up(replicas=3, loads={"maxConcurrent": 1})
    model = stage.serve("steady", 2.0)
    for double in stage.tritons().values():
        double.faults.slow_load["steady/2"] = 1.0
    stage.apply(model.with_version(2, stage.put_model("2.onnx", 5.0)))
    most = 0

    def all_have_loaded() -> None:
        nonlocal most
        loading = [
            double
            for double in stage.tritons().values()
            if any(row.state == "LOADING" for row in double.repository.index())
        ]
        most = max(most, len(loading))
        assert set(stage.served_factors("steady").values()) == {5.0}

    eventually(all_have_loaded, because=stage.explain)
    assert most == 1


def test_restarted_operator_goes_on_with_a_candidate(stage: Stage) -> None:
    stage.set_up(replicas=2)
    model = stage.serve("steady", 2.0)
    for double in stage.tritons().values():
        double.faults.slow_load[CANDIDATE] = 3.0
    with stage.asked({"steady": (2.0, 5.0), "steady/1": (2.0,)}):
        stage.apply(model.with_version(2, stage.put_model("2.onnx", 5.0)))
        stage.wait_version("steady", 2, "Candidate", reason="Trying")
        stage.operator.kill()
        stage.operator.start()
        stage.wait_ready("InferenceModel", "steady")
    assert set(stage.served_factors("steady").values()) == {5.0}


def test_version_takes_the_place_of_the_old_one_without_a_gap(stage: Stage) -> None:
    stage.set_up(replicas=2)
    stage.serve("steady", 2.0)
    with stage.asked({"steady": (2.0, 5.0)}):
        stage.apply(a_model("steady").with_version(2, stage.put_model("2.onnx", 5.0)))
        stage.wait_ready("InferenceModel", "steady")

        def old_one_is_gone() -> None:
            assert not (stage.tree() / "steady/1").exists()
            assert {*map(len, (d.repository.ready("steady") for d in stage.tritons().values()))} == {1}

        eventually(old_one_is_gone, because=stage.explain)
    assert set(stage.served_factors("steady").values()) == {5.0}
    assert stage.wait_version("steady", 1, "Removed")["engines"]


def test_status_reads_like_a_log_of_what_happened_to_each_version(stage: Stage) -> None:
    stage.set_up(replicas=2)
    model = stage.serve("told", 2.0)
    second = model.with_version(2, stage.put_model("2.onnx", 5.0))
    stage.apply(second)
    stage.wait_ready("InferenceModel", "told")
    for pod in stage.pods().values():
        pod.faults.nan.add("told.candidate")
    stage.apply(second.with_version(3, stage.put_model("3.onnx", 7.0)))
    stage.wait_condition("InferenceModel", "told", "Stalled", "True", reason="WrongAnswers")
    stage.apply(model)
    stage.wait_ready("InferenceModel", "told")
    stage.wait_version("told", 2, "Removed")
    story = [
        turn for turn in stage.story("told") if turn[1] != "Retiring"
    ]  # it may be over before it is seen
    assert [reason for number, reason in story if number == 1] == ["Building", "Promoted", "Served"]
    assert [reason for number, reason in story if number == 2] == [
        "Building",
        "Candidate",
        "Promoted",
        "Served",
        "Removed",
    ]
    assert [reason for number, reason in story if number == 3] == [
        "Building",
        "Candidate",
        "WrongAnswers",
        "Removed",
    ]
    history = stage.kube.get("InferenceModel", "told")["status"]["history"]
    assert [entry["time"] for entry in history] == sorted(entry["time"] for entry in history)
    for entry in history:
        stage.wait_event("told", entry["reason"], entry["message"])
    assert version_of(stage.kube.get("InferenceModel", "told"), 1)["servedSince"]
