from __future__ import annotations

from typing import Any

from tests.observed import a_job, a_pod, an_ended_pod, at

from engine_builder.contract import Reason, Report
from triton_operator.plan.build_times import Ended, latest

Object = dict[str, Any]


def a_pod_that_held(began: float, ended: float, report: Report) -> Object:
    pod = an_ended_pod(report)
    pod["status"]["conditions"] = [
        {"type": "PodScheduled", "status": "True", "lastTransitionTime": at(began)}
    ]
    pod["status"]["containerStatuses"][0]["state"]["terminated"]["finishedAt"] = at(ended)
    return pod


def test_a_pod_holds_its_gpu_from_its_binding_to_the_end_of_its_container() -> None:
    report = Report(reason=Reason.SUCCEEDED, compiler_seconds=3.4)
    found = latest([a_job(1, end="Complete", ended=10)], [a_pod_that_held(4, 9, report)])
    assert found == Ended("build-1", "Succeeded", seconds=8.0, held=5.0, compiler=3.4)
    status = found.status(has_gpus=True)
    assert (status.seconds, status.held_seconds, status.compiler_seconds) == (8, 5, 3)
    assert found.status(has_gpus=False).to_manifest() == {"job": "build-1", "seconds": 8}


def test_a_failed_attempt_has_held_its_gpu_too() -> None:
    report = Report(reason=Reason.BUILD_FAILED)
    found = latest([a_job(1, end="Failed", ended=10)], [a_pod_that_held(4, 9, report)])
    assert found == Ended("build-1", "BuildFailed", seconds=8.0, held=5.0, compiler=0.0)


def test_without_its_pod_nobody_says_how_long_it_held_anything() -> None:
    assert latest([a_job(1, end="Failed")], []) == Ended("build-1", "PodLost", seconds=8.0)


def test_the_newest_attempt_counts_when_it_is_over() -> None:
    running = a_pod(owner="job-2", phase="Running")
    assert latest([], []) is None
    assert latest([a_job(1, end="Failed"), a_job(2)], []) is None
    assert latest([a_job(1, end="Failed"), a_job(2, end="Complete")], [running]) is None
    found = latest([a_job(1, end="Failed"), a_job(2, end="Complete")], [])
    assert found is not None
    assert found.job == "build-2"
