"""What a release may do, rule by rule, and what it did."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.e2e.audit import Request
    from tests.integration.kube import Kube

EVERYWHERE, HOME = "everywhere", "home"
FOR_ALL = frozenset({"selfsubjectaccessreviews", "selfsubjectrulesreviews"})
"""Anybody who logged in may ask what they may do."""

Object = dict[str, Any]


@dataclasses.dataclass(frozen=True, order=True)
class Right:
    """One verb on one resource, everywhere or in the release's own namespace alone."""

    where: str
    group: str
    resource: str
    verb: str
    name: str = ""
    """The one object that it is for, if the rule names it."""

    def covers(self, request: Request, home: str) -> bool:
        """Tell whether a request needs no more than this."""
        here = self.where == EVERYWHERE or request.namespace == home
        same = (self.group, self.resource, self.verb) == (request.group, request.resource, request.verb)
        return here and same and self.name in ("", request.name)


def granted(kube: Kube, *, account: str, home: str) -> set[Right]:
    """Return the rights of a service account."""
    found: set[Right] = set()
    for binding in kube.within("").list("ClusterRoleBinding"):
        if _is_for(binding, account, home):
            role = kube.within("").get("ClusterRole", binding["roleRef"]["name"])
            found |= _rights(role, EVERYWHERE)
    for binding in kube.within(home).list("RoleBinding"):
        if _is_for(binding, account, home):
            found |= _rights(kube.within(home).get("Role", binding["roleRef"]["name"]), HOME)
    return found


def used(rights: Iterable[Right], requests: Iterable[Request], *, home: str) -> tuple[set[Right], set[str]]:
    """Return the rights that requests needed, the narrowest each, and the requests that had none."""
    narrow_first = sorted(rights, key=lambda right: (right.where != HOME, not right.name))
    needed: set[Right] = set()
    beyond: set[str] = set()
    for request in requests:
        if request.resource in FOR_ALL:
            continue
        right = next((each for each in narrow_first if each.covers(request, home)), None)
        if right is None:
            beyond.add(f"{request.verb} {request.group or 'core'}/{request.resource} in {request.namespace}")
        else:
            needed.add(right)
    return needed, beyond


def _is_for(binding: Object, account: str, home: str) -> bool:
    return any(
        (each["kind"], each["name"], each.get("namespace")) == ("ServiceAccount", account, home)
        for each in binding.get("subjects") or []
    )


def _rights(role: Object, where: str) -> set[Right]:
    return {
        Right(where, group, resource, verb, name)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for name in rule.get("resourceNames") or [""]
    }
