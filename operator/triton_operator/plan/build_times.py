"""How long an attempt at an engine took, and how long of that it held its GPUs."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Sequence
from typing import Any

from engine_builder.contract import Reason
from triton_operator.plan import attempts, pods
from triton_operator.resources.engine import BuildStatus

Object = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Ended:
    """An attempt that has ended: `Succeeded` or the reason of its failure, and its seconds.

    `held` are those in which its pod had its GPUs, `compiler` what the compiler took of them: None where
    nobody says.
    """

    job: str
    result: str
    seconds: float
    held: float | None = None
    compiler: float | None = None

    def status(self, *, has_gpus: bool) -> BuildStatus:
        """Return what an Engine's status keeps of it."""
        return BuildStatus(
            job=self.job,
            seconds=round(self.seconds),
            held_seconds=round(self.held) if has_gpus and self.held is not None else None,
            compiler_seconds=round(self.compiler) if has_gpus and self.compiler is not None else None,
        )


def latest(jobs: Sequence[Object], job_pods: Sequence[Object]) -> Ended | None:
    """Return the newest attempt when it has ended, and its pod has told all it had to."""
    newest = max(jobs, key=attempts.attempt_of, default=None)
    end = attempts.end_of(newest) if newest is not None else None
    if newest is None or end is None:
        return None
    own_pods = [pod for pod in job_pods if pods.is_owned_by(pod, newest["metadata"]["uid"])]
    if not all(map(pods.has_ended, own_pods)):
        return None
    report = attempts.report_of(own_pods)
    failed = attempts.condition(newest, "Failed")
    held = [seconds for seconds in map(_held, own_pods) if seconds is not None]
    return Ended(
        job=newest["metadata"]["name"],
        result=attempts.why(failed, report, own_pods)[0] if failed is not None else Reason.SUCCEEDED.value,
        seconds=_between(newest["status"].get("startTime"), end.get("lastTransitionTime")) or 0.0,
        held=sum(held) if held else None,
        compiler=report.compiler_seconds if report is not None else None,
    )


def _held(pod: Object) -> float | None:
    """Return the seconds between a pod's binding to its node and the end of its last container."""
    statuses = pod["status"].get("containerStatuses") or []
    ends = [status.get("state", {}).get("terminated", {}).get("finishedAt") for status in statuses]
    return _between(pods.scheduling(pod).get("lastTransitionTime"), max(filter(None, ends), default=None))


def _between(began: str | None, ended: str | None) -> float | None:
    if began is None or ended is None:
        return None
    seconds: datetime.timedelta = attempts.parse_time(ended) - attempts.parse_time(began)
    return max(0.0, seconds.total_seconds())
