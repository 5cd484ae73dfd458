"""A restarted operator repeats nothing, and at rest nothing is written."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

import pytest
from tests.e2e.audit import AuditLog, Request
from tests.integration.eventually import eventually

if TYPE_CHECKING:
    from tests.e2e.installation import Installation
    from tests.e2e.stage import Stage

QUIET_SECONDS = 120
SETTLED_SECONDS = 10
SETTLE_WITHIN = 120


@dataclasses.dataclass(frozen=True)
class State:
    """What must be the same before and after."""

    loads: dict[str, int]
    jobs: list[str]
    versions: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Watched:
    """A restart and two quiet minutes after it."""

    before: State
    after: State
    writes_since_restart: list[Request]
    writes_at_rest: list[Request]
    complaints: list[str]


def state_of(stage: Stage) -> State:
    kinds = ("InferenceModel", "TritonServer", "ModelRepository", "Engine", "Job", "Deployment", "Service")
    versions = {
        f"{kind}/{each['metadata']['name']}": each["metadata"]["resourceVersion"]
        for kind in kinds
        for each in stage.kube.list(kind)
    }
    jobs = [each["metadata"]["uid"] for each in stage.kube.list("Job")]
    return State(loads=stage.loads(), jobs=sorted(jobs), versions=versions)


@pytest.fixture(scope="module")
def watched(shared: Stage, installation: Installation) -> Watched:
    """Restart the operator, and watch for two minutes while nobody asks for anything."""
    path = installation.cluster.audit_log
    if path is None:
        pytest.skip("CLUSTER=current: the audit log of a foreign cluster can't be read")
    settle(installation, path=AuditLog.from_now(path))
    before, since_restart = state_of(shared), AuditLog.from_now(path)
    installation.restart()
    at_rest = AuditLog.from_now(path)
    time.sleep(QUIET_SECONDS)  # the one sleep: that nothing happens can't be polled for
    return Watched(
        before=before,
        after=state_of(shared),
        writes_since_restart=since_restart.writes(installation.user),
        writes_at_rest=at_rest.writes(installation.user),
        complaints=installation.complaints(),
    )


def settle(installation: Installation, *, path: AuditLog) -> None:
    """Wait until the operator has written nothing for a while."""
    last = [0, time.monotonic()]

    def quiet() -> None:
        writes = path.writes(installation.user)
        if len(writes) != last[0]:
            last[:] = [len(writes), time.monotonic()]
        assert time.monotonic() - last[1] > SETTLED_SECONDS, [str(each) for each in writes[-5:]]

    eventually(quiet, within=SETTLE_WITHIN)


@pytest.mark.last(1)
def test_restarted_operator_loads_and_builds_nothing_again(watched: Watched) -> None:
    assert watched.after.loads == watched.before.loads
    assert watched.after.jobs == watched.before.jobs


@pytest.mark.last(1)
def test_restarted_operator_repeats_no_write(watched: Watched) -> None:
    assert [str(each) for each in watched.writes_since_restart] == []
    assert watched.after.versions == watched.before.versions


@pytest.mark.last(1)
def test_at_rest_nothing_is_written_for_two_minutes(watched: Watched) -> None:
    assert [str(each) for each in watched.writes_at_rest] == []


@pytest.mark.last(1)
def test_log_of_the_operator_holds_no_error(watched: Watched) -> None:
    assert watched.complaints == []
