"""A version that is removed leaves at once, the one before answers, and putting it back is but a load."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.builders import a_model
from tests.integration.eventually import eventually
from tests.told import version_of

if TYPE_CHECKING:
    from tests.builders import ModelBuilder
    from tests.integration.operator.stage import Stage

AT_ONCE_SECONDS = 5.0
"""A watch, two status changes and an unload of a double, on a machine that does much else."""


def two_versions(stage: Stage, *, replicas: int = 2) -> tuple[ModelBuilder, ModelBuilder]:
    """Have two versions served, and return the model with the first alone and with both."""
    stage.set_up(replicas=replicas)
    first = stage.serve("steady", 2.0)
    both = first.with_version(2, stage.put_model("2.onnx", 5.0))
    stage.apply(both)
    stage.wait_ready("InferenceModel", "steady")
    return first, both


def test_removed_version_leaves_at_once_and_the_one_before_answers(stage: Stage) -> None:
    first, _ = two_versions(stage)
    with stage.asked({"steady": (5.0, 2.0), "steady/1": (2.0,)}):
        stage.apply(first)
        since = time.monotonic()
        stage.wait_factors("steady", 2.0, 2.0)
        assert time.monotonic() - since < AT_ONCE_SECONDS
        stage.wait_ready("InferenceModel", "steady")

    def has_left_the_tree() -> None:
        assert not (stage.tree() / "steady/2").exists()

    eventually(has_left_the_tree, because=stage.explain)
    assert {double.repository.version_loads["steady", 1] for double in stage.tritons().values()} == {1}
    removed = stage.wait_version("steady", 2, "Removed")
    assert removed["sha256"] == stage.sha256("2.onnx")
    assert [reason for number, reason in stage.story("steady") if number == 2][-1] == "Removed"


def test_version_that_is_put_back_is_loaded_without_a_build_and_without_a_trial(stage: Stage) -> None:
    first, both = two_versions(stage)
    jobs = {job["metadata"]["uid"] for job in stage.kube.list("Job")}
    trials = sum(double.counts.loads["steady.candidate"] for double in stage.tritons().values())
    stage.apply(first)
    stage.wait_version("steady", 2, "Removed")
    stage.wait_factors("steady", 2.0, 2.0)
    with stage.asked({"steady": (2.0, 5.0), "steady/1": (2.0,)}):
        stage.apply(both)
        stage.wait_factors("steady", 5.0, 5.0)
        found = stage.wait_ready("InferenceModel", "steady")
    assert version_of(found, 2)["state"] == "Promoted"
    assert {job["metadata"]["uid"] for job in stage.kube.list("Job")} <= jobs, "something was built"
    loads = [double.counts.loads["steady.candidate"] for double in stage.tritons().values()]
    assert sum(loads) == trials, "what had passed was tried again"


def test_number_stays_bound_to_its_content_after_a_rollback(stage: Stage) -> None:
    first, both = two_versions(stage, replicas=1)
    stage.apply(first)
    stage.wait_version("steady", 2, "Removed")
    stage.apply(first.with_version(2, stage.put_model("other.onnx", 9.0)))
    stage.wait_condition("InferenceModel", "steady", "Stalled", "True", reason="VersionReused")
    assert list(stage.served_factors("steady").values()) == [2.0]
    stage.apply(first)
    stage.wait_ready("InferenceModel", "steady")
    stage.apply(both)
    stage.wait_ready("InferenceModel", "steady")
    assert list(stage.served_factors("steady").values()) == [5.0]


def test_rollback_from_the_only_listed_version_never_leaves_a_gap(stage: Stage) -> None:
    two_versions(stage)
    first, second = stage.put_model("steady-1.onnx", 2.0), stage.put_model("2.onnx", 5.0)
    with stage.asked({"steady": (5.0,)}):
        stage.apply(a_model("steady").with_version(2, second))
        stage.wait_ready("InferenceModel", "steady")
        stage.wait_version("steady", 1, "Removed")
    with stage.asked({"steady": (5.0, 2.0)}):
        stage.apply(a_model("steady").with_version(1, first))
        stage.wait_ready("InferenceModel", "steady")
        stage.wait_factors("steady", 2.0, 2.0)
