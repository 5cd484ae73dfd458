"""How loads that failed are judged: tried again with growing pauses, and given up after a few.

Every load of a TensorRT engine that fails costs GPU memory for good (triton-inference-server/server#8969),
so a load is never tried for ever.
"""

from __future__ import annotations

import dataclasses
import enum

from triton_operator.plan.converge import Load, Step

MOST_REFUSED = 3
"""Loads that a pod refuses for what a version is, before it is given up."""

MOST_PASSING = 8
"""Loads in vain for what may pass, such as a directory that a network volume shows late."""

MOST_CRASHES = 2
"""Ends of a container while it loaded a version that serves elsewhere; one is enough for a candidate."""


class Fault(enum.StrEnum):
    """Why a load failed; the reason of the version's verdict once it is given up."""

    FAILED = "LoadFailed"
    TIMEOUT = "LoadTimeout"
    CRASHED = "LoadCrashed"


@dataclasses.dataclass(frozen=True)
class Failure:
    """A step that failed: how often in a row, and why the last time."""

    step: Step
    fault: Fault
    message: str
    count: int = 1
    passing: bool = False

    def again(self, fault: Fault, message: str, *, passing: bool) -> Failure:
        """Return this failure after one more."""
        return Failure(self.step, fault, message, self.count + 1, passing)

    @property
    def given_up(self) -> bool:
        """Return whether the step is not taken again until something changes."""
        if not isinstance(self.step, Load):
            return False
        if self.fault is Fault.TIMEOUT:
            return True
        if self.fault is Fault.CRASHED:
            return self.count >= (1 if self.step.desired.trial else MOST_CRASHES)
        return self.count >= (MOST_PASSING if self.passing else MOST_REFUSED)

    def __str__(self) -> str:
        """Return it in words."""
        times = "once" if self.count == 1 else f"{self.count} times"
        end = "; given up until the spec changes or the container restarts" if self.given_up else ""
        return f"load failed {times}: {self.message}{end}"
