"""Which pods get no requests because they failed to load a model that others serve."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Served:
    """What a pod does with its server's models: which answer, and which it failed to load."""

    models: frozenset[str]
    failed: frozenset[str]


def left_out(pods: Mapping[str, Served]) -> frozenset[str]:
    """Return the pods that requests must not reach.

    A Service knows pods and not models, so a pod that lacks one model gets no requests at all. It is
    left out only if every model that it serves is served by a pod that stays in, and never more pods
    are out than in: a model that most pods fail to load is the model's fault, and the others' capacity
    matters more.
    """
    out: set[str] = set()
    lacking = {name: pod for name, pod in pods.items() if _lacks(pod, pods)}
    for name, pod in sorted(lacking.items(), key=lambda item: (-len(item[1].failed), item[0])):
        inside = [other for key, other in pods.items() if key != name and key not in out]
        covered = frozenset().union(*(other.models for other in inside))
        if len(out) + 1 <= len(inside) and pod.models <= covered:
            out.add(name)
    return frozenset(out)


def _lacks(pod: Served, pods: Mapping[str, Served]) -> bool:
    served_elsewhere = frozenset().union(*(other.models for other in pods.values()))
    return bool((pod.failed - pod.models) & served_elsewhere)
