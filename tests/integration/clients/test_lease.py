from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from triton_operator.clients.kube import LEASE, Kube
from triton_operator.lease import Lease, LeaseLost

if TYPE_CHECKING:
    from tests.integration.clients.conftest import Line


def a_lease(kube: Kube, namespace: str, identity: str, **more: Any) -> Lease:
    """A lease that runs five times as fast as the real one."""
    seconds = {"duration_seconds": 3, "deadline_seconds": 2, "renew_seconds": 0.8, "retry_seconds": 0.3}
    return Lease(kube, namespace=namespace, name="operator", identity=identity, **{**seconds, **more})


async def holder(kube: Kube, namespace: str) -> str:
    lease = await kube.get(LEASE, namespace, "operator")
    assert lease
    return str(lease["spec"]["holderIdentity"])


async def test_released_lease_is_taken_at_once(kube: Kube, namespace: str) -> None:
    one, two = a_lease(kube, namespace, "one"), a_lease(kube, namespace, "two", duration_seconds=60)
    await one.acquire()
    waiting = asyncio.create_task(two.acquire())
    await asyncio.sleep(0.8)
    assert not waiting.done()
    assert await holder(kube, namespace) == "one"
    await one.release()
    async with asyncio.timeout(1.5):
        await waiting
    assert await holder(kube, namespace) == "two"
    assert (one.held, two.held) == (False, True)


async def test_lease_of_a_dead_holder_is_taken_after_its_duration_and_not_before(
    kube: Kube, namespace: str
) -> None:
    one, two = a_lease(kube, namespace, "one"), a_lease(kube, namespace, "two")
    await one.acquire()
    started = asyncio.get_running_loop().time()
    async with asyncio.timeout(10):
        await two.acquire()
    assert asyncio.get_running_loop().time() - started > 3


async def test_held_lease_is_renewed_and_never_given_to_another(kube: Kube, namespace: str) -> None:
    one, two = a_lease(kube, namespace, "one"), a_lease(kube, namespace, "two")
    await one.acquire()
    holding, waiting = asyncio.create_task(one.hold()), asyncio.create_task(two.acquire())
    await asyncio.sleep(5)
    assert not waiting.done()
    assert not holding.done()
    for task in (holding, waiting):
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_restarted_pod_takes_its_own_lease_at_once(kube: Kube, namespace: str) -> None:
    await a_lease(kube, namespace, "pod").acquire()
    async with asyncio.timeout(1):
        await a_lease(kube, namespace, "pod").acquire()


async def test_holder_gives_up_before_another_may_take_over(
    kube: Kube, far_kube: Kube, line: Line, namespace: str
) -> None:
    changes: list[bool] = []
    one = a_lease(far_kube, namespace, "one", on_change=changes.append)
    await one.acquire()
    started = asyncio.get_running_loop().time()
    holding = asyncio.create_task(one.hold())
    await line.cut()
    async with asyncio.timeout(3):
        with pytest.raises(LeaseLost):
            await holding
    assert asyncio.get_running_loop().time() - started < 3
    assert changes == [True, False]
    await one.release()


async def test_holder_survives_a_short_break_and_a_foreign_edit(
    kube: Kube, far_kube: Kube, line: Line, namespace: str
) -> None:
    one = a_lease(far_kube, namespace, "one")
    await one.acquire()
    holding = asyncio.create_task(one.hold())
    await line.cut()
    await asyncio.sleep(1)
    await line.mend()
    await asyncio.sleep(1)
    lease = await kube.get(LEASE, namespace, "operator")
    assert lease
    lease["metadata"]["labels"] = {"touched": "yes"}
    with contextlib.suppress(Exception):
        await kube.replace(LEASE, lease)
    await asyncio.sleep(2.5)
    assert not holding.done()
    assert one.held
    holding.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await holding


@pytest.mark.parametrize("theft", ["taken", "deleted"])
async def test_holder_notices_that_the_lease_is_not_its_own_any_more(
    kube: Kube, namespace: str, theft: str
) -> None:
    one = a_lease(kube, namespace, "one")
    await one.acquire()
    holding = asyncio.create_task(one.hold())
    lease = await kube.get(LEASE, namespace, "operator")
    assert lease
    if theft == "deleted":
        await kube.delete(LEASE, namespace, "operator", uid=lease["metadata"]["uid"])
    else:
        await kube.replace(LEASE, {**lease, "spec": {**lease["spec"], "holderIdentity": "thief"}})
    async with asyncio.timeout(3):
        with pytest.raises(LeaseLost):
            await holding


async def test_holder_that_slept_finds_out_whether_another_took_over(kube: Kube, namespace: str) -> None:
    one, two = a_lease(kube, namespace, "one"), a_lease(kube, namespace, "two")
    await one.acquire()
    await asyncio.sleep(2.5)
    holding = asyncio.create_task(one.hold())
    await asyncio.sleep(0.5)
    assert not holding.done()
    holding.cancel()
    await two.acquire()
    async with asyncio.timeout(3):
        with pytest.raises(LeaseLost):
            await one.hold()


async def test_lease_goes_with_its_owner(kube: Kube, namespace: str) -> None:
    owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "operator", "uid": "1-2-3"}
    await a_lease(kube, namespace, "one", owner=owner).acquire()
    lease = await kube.get(LEASE, namespace, "operator")
    assert lease
    assert lease["metadata"]["ownerReferences"] == [owner]
