"""What servers and their pods do with one model, as verdicts and status see it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from triton_operator.plan.loads import Fault
from triton_operator.plan.outcome import Outcome
from triton_operator.plan.versions import Build


@dataclasses.dataclass(frozen=True)
class PodView:
    """What one pod does with a model: versions that answer, or what is in the way.

    `current` tells whether it runs the configuration that the tree has, `silence` why the pod
    can't be asked, `given_up` for which fault the model is not loaded any more.
    """

    name: str
    ready: frozenset[int]
    current: bool = True
    trouble: str = ""
    silence: str = ""
    given_up: Fault | None = None


@dataclasses.dataclass(frozen=True)
class TrialView:
    """A version on trial on one pod, or, without a pod, waiting for one; `ready` when it answers there."""

    number: int
    engine: str
    pod: str = ""
    ready: bool = False
    trouble: str = ""
    given_up: Fault | None = None


@dataclasses.dataclass(frozen=True)
class ServerView:
    """What one server does with a model.

    `refusal` says why it does nothing with it, `agreed` whether its pods were told what the spec says
    now, `known` whether its tree could be looked at, `lent` which pods it has lent to a build.
    """

    name: str
    refusal: Outcome | None = None
    builds: tuple[Build, ...] = ()
    in_tree: Mapping[int, str] = dataclasses.field(default_factory=dict)
    wanted_pods: int = 0
    agreed: bool = True
    known: bool = True
    lent: str = ""
    pods: tuple[PodView, ...] = ()
    trial: TrialView | None = None

    def ready_pods(self, number: int) -> int:
        """Return on how many pods a version answers."""
        return sum(number in pod.ready for pod in self.pods)
