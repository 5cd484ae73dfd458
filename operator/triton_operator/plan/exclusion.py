"""Which pods get no requests because they failed to load what others serve."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Served:
    """What requests find on a pod and what they miss: models (`text`) and versions (`text/2`).

    A pod that is not `ready` gets no requests now; it is judged all the same, before it does.
    """

    found: frozenset[str]
    missed: frozenset[str]
    ready: bool = True


def left_out(pods: Mapping[str, Served]) -> frozenset[str]:
    """Return the pods that requests must not reach.

    A Service knows pods and not models, so a pod that lacks one model gets no requests at all. It is
    left out only if all that it serves is served by a pod that stays in, and never more pods
    are out than in: a model that most pods fail to load is the model's fault, and the others' capacity
    matters more.
    """
    everywhere = frozenset().union(*(pod.found for pod in pods.values() if pod.ready))
    lacking = {name: pod for name, pod in pods.items() if pod.missed & everywhere}
    out: set[str] = set()
    for name, pod in sorted(lacking.items(), key=lambda item: (-len(item[1].missed), item[0])):
        inside = [other for key, other in pods.items() if other.ready and key != name and key not in out]
        covered = frozenset().union(*(other.found for other in inside))
        if len(out) + 1 <= len(inside) and pod.found <= covered:
            out.add(name)
    return frozenset(out)
