"""Candidates: versions on trial under a name of their own, each on one pod, at most one to a pod."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from triton_operator.resources.inference_model import CANDIDATE_SUFFIX


def name_of(model: str) -> str:
    """Return the name in Triton under which a model's new version is tried."""
    return f"{model}{CANDIDATE_SUFFIX}"


def is_trial(model: str) -> bool:
    """Tell whether a name in a tree is a candidate's."""
    return model.endswith(CANDIDATE_SUFFIX)


def hosts(candidates: Iterable[str], pods: Sequence[str], before: Mapping[str, str]) -> dict[str, str]:
    """Return by candidate the pod that tries it; `pods` are the UIDs of those that can, in order.

    Two candidates on one pod could take each other's memory, and both would be judged wrongly. So
    each has a pod for itself, keeps it as long as that pod can, and waits while none is free.
    """
    wanted = sorted(candidates)
    chosen = {name: before[name] for name in wanted if before.get(name) in pods}
    free = iter([pod for pod in pods if pod not in chosen.values()])
    for name in wanted:
        if name not in chosen and (pod := next(free, None)) is not None:
            chosen[name] = pod
    return chosen
