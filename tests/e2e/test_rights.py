"""The rights in the chart are those that the audit log shows: no more, and no less."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
from tests.e2e.rights import Right, granted, used

if TYPE_CHECKING:
    from tests.e2e.audit import AuditLog, Request
    from tests.e2e.installation import Installation


@pytest.fixture(scope="module")
def requests(installation: Installation, shared_uses: dict[str, AuditLog]) -> list[Request]:
    """Everything that operators asked for during this run, as if the second had been the first."""
    if installation.since is None:
        pytest.skip("CLUSTER=current: the audit log of a foreign cluster can't be read")
    found = installation.since.requests(installation.user)
    for user, since in shared_uses.items():
        home = user.split(":")[2]
        found += [as_of(each, home, installation) for each in since.requests(user)]
    return found


def as_of(request: Request, home: str, installation: Installation) -> Request:
    """Return a second release's request as the first would have made it."""
    namespace = installation.namespace if request.namespace == home else request.namespace
    own_deployment = request.resource == "deployments" and request.namespace == home
    name = installation.deployment if own_deployment else request.name
    return dataclasses.replace(request, namespace=namespace, name=name)


@pytest.fixture(scope="module")
def rights(installation: Installation) -> set[Right]:
    """What the chart grants."""
    account = installation.user.rpartition(":")[2]
    return granted(installation.cluster.kube(), account=account, home=installation.namespace)


@pytest.mark.last(3)
def test_nothing_was_forbidden(requests: list[Request], installation: Installation) -> None:
    assert sorted({str(each) for each in requests if each.refused and each.user == installation.user}) == []


@pytest.mark.last(3)
def test_operator_uses_no_right_that_the_chart_does_not_grant(
    requests: list[Request], rights: set[Right], installation: Installation
) -> None:
    assert rights
    assert used(rights, requests, home=installation.namespace)[1] == set()


@pytest.mark.last(3)
def test_chart_grants_no_right_that_the_operator_does_not_use(
    requests: list[Request], rights: set[Right], installation: Installation, *, whole_run: bool
) -> None:
    needed, _ = used(rights, requests, home=installation.namespace)
    idle = rights - needed
    for right in sorted(idle):
        print(f"granted and not used in this run: {right}")
    if whole_run:  # a part of the tests uses a part of the rights
        assert sorted(idle) == []
