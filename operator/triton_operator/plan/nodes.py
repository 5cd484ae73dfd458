"""Nodes as far as a server's GPUs depend on them: labels, taints, extended resources."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Self

from triton_operator.plan import drift
from triton_operator.resources.pods import TaintEffect, Toleration, TolerationOperator

Object = dict[str, Any]

VENDOR = "nvidia.com/"
_PASSING = ("node.kubernetes.io/", "node.cloudprovider.kubernetes.io/")
"""Taints of a node's state, such as cordoned or unreachable: they say nothing about its hardware."""


@dataclasses.dataclass(frozen=True)
class Taint:
    """What keeps pods off a node that don't tolerate it."""

    key: str
    value: str
    effect: str

    def __str__(self) -> str:
        return f"{self.key}{f'={self.value}' if self.value else ''}:{self.effect}"

    @property
    def keeps_off(self) -> bool:
        """Tell whether the scheduler obeys it, and not just for the time of some trouble."""
        return self.effect != TaintEffect.PREFER_NO_SCHEDULE and not self.key.startswith(_PASSING)


@dataclasses.dataclass(frozen=True)
class Node:
    """A node; `resources` counts what pods may have of its extended resources."""

    name: str
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    resources: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @classmethod
    def parse(cls, obj: Mapping[str, Any]) -> Self:
        """Return what a Node object, whole or `kept`, says."""
        taints = (obj.get("spec") or {}).get("taints") or ()
        return cls(
            name=obj["metadata"]["name"],
            labels=obj["metadata"].get("labels") or {},
            taints=tuple(Taint(t["key"], t.get("value", ""), t["effect"]) for t in taints),
            resources={name: int(drift.amount(text) or 0) for name, text in _extended(obj).items()},
        )

    @property
    def has_gpu(self) -> bool:
        """Tell whether pods can get a GPU here, or could if its driver were up."""
        return bool(self.resources) or any(label.startswith(VENDOR) for label in self.labels)

    def hindrance(self, tolerations: Sequence[Toleration]) -> Taint | None:
        """Return a taint that keeps pods with these tolerations off, or None."""
        found = (taint for taint in self.taints if taint.keeps_off)
        return next((t for t in found if not any(_tolerates(each, t) for each in tolerations)), None)


def kept(obj: Object) -> Object:
    """Return what must be remembered of a Node object: a cluster has many, and they are large.

    Of one without GPUs that is its identity.
    """
    metadata = {key: obj["metadata"].get(key, "") for key in ("name", "uid", "resourceVersion")}
    found = {"apiVersion": obj.get("apiVersion"), "kind": obj.get("kind"), "metadata": metadata}
    if not Node.parse(obj).has_gpu:
        return found
    return {
        **found,
        "metadata": metadata | {"labels": dict(obj["metadata"].get("labels") or {})},
        "spec": {"taints": list((obj.get("spec") or {}).get("taints") or ())},
        "status": {"allocatable": _extended(obj)},
    }


def is_same(one: Object, other: Object) -> bool:
    """Tell whether two states of a kept Node differ in nothing: heartbeats change its version alone."""
    return Node.parse(one) == Node.parse(other) and one["metadata"]["uid"] == other["metadata"]["uid"]


def _extended(obj: Mapping[str, Any]) -> dict[str, str]:
    """Return the extended resources that pods may have of a node, without those in trouble."""
    found = (obj.get("status") or {}).get("allocatable") or {}
    return {
        name: str(text)
        for name, text in found.items()
        if "/" in name and not name.startswith("kubernetes.io/") and drift.amount(text)
    }


def _tolerates(toleration: Toleration, taint: Taint) -> bool:
    # https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/
    if toleration.effect is not None and toleration.effect != taint.effect:
        return False
    if toleration.key is not None and toleration.key != taint.key:
        return False
    if toleration.operator is TolerationOperator.EXISTS:
        return True
    return toleration.key is not None and (toleration.value or "") == taint.value
