"""Candidates: versions on trial under a name of their own, each on one pod, at most one to a pod."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

from triton_operator.resources.inference_model import CANDIDATE_SUFFIX


def name_of(model: str) -> str:
    """Return the name in Triton under which a model's new version is tried."""
    return f"{model}{CANDIDATE_SUFFIX}"


def is_trial(model: str) -> bool:
    """Tell whether a name in a tree is a candidate's."""
    return model.endswith(CANDIDATE_SUFFIX)


def hosts(
    candidates: Iterable[str],
    able: Sequence[str],
    *,
    before: Mapping[str, str],
    standing: AbstractSet[str],
) -> dict[str, str]:
    """Return by candidate the UID of the pod that tries it.

    Two candidates on one pod could take each other's memory, and both would be judged wrongly. So
    each has a pod for itself, the first of those `able` to try one, and waits while none is free. It
    keeps its pod while that is `standing`, even if its container has just ended: a candidate that ends
    containers must not go from pod to pod.
    """
    wanted = sorted(candidates)
    chosen = {name: before[name] for name in wanted if before.get(name) in standing}
    free = iter([pod for pod in able if pod not in chosen.values()])
    for name in wanted:
        if name not in chosen and (pod := next(free, None)) is not None:
            chosen[name] = pod
    return chosen
