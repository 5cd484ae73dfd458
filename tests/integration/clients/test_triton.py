"""The client against the double and against the real server: the same answers from both."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest
from google.protobuf import text_format
from tests.integration import real_triton
from tests.integration.triton.ground import Volume, a_config
from tests.integration.triton_double import TritonDouble

from triton_operator.clients.triton import Triton, TritonRefused, TritonUnreachable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

KEY = "0123456789abcdef"
CONTROL = ("triton-operator-key", KEY)


def a_text(name: str, versions: list[int], *, fingerprint: str = "aa", delay: int = 0) -> str:
    config = a_config(name, versions, fingerprint=fingerprint)
    if delay:
        config.dynamic_batching.max_queue_delay_microseconds = delay  # 64 bits: text in JSON
    return text_format.MessageToString(config)


def lay_out(root: Path) -> Volume:
    volume = Volume(root / "volume")
    for engine, factor in {"one": 1.0, "two": 2.0, "broken": None}.items():
        volume.put_engine(engine, factor)
    for model, engine in {"good": "one", "bad": "broken"}.items():
        volume.link(model, 1, engine)
        volume.put_config(a_config(model, [1]))
    return volume


@pytest.fixture(params=["double", "real"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    volume = lay_out(tmp_path)
    if request.param == "real":
        if reason := real_triton.unavailable():
            pytest.skip(reason)
        with real_triton.real_triton(volume.tree, workdir=tmp_path, control=CONTROL) as address:
            yield address
    else:
        double = TritonDouble(volume.tree, address="127.0.0.1:0", control=CONTROL)
        double.start()
        yield double.address
        double.stop()


@pytest.fixture
def double(tmp_path: Path) -> Iterator[TritonDouble]:
    double = TritonDouble(lay_out(tmp_path).tree, address="127.0.0.1:0", control=CONTROL)
    double.start()
    yield double
    double.faults.hang = False
    double.stop()


@contextlib.asynccontextmanager
async def connected(address: str, *, key: str = KEY, seconds: float = 10) -> AsyncIterator[Triton]:
    triton = Triton(address, control_key=key, timeout=seconds)
    try:
        yield triton
    finally:
        await triton.close()


async def test_client_tells_what_is_loaded_and_changes_it(address: str) -> None:
    async with connected(address) as triton:
        assert await triton.server_ready()
        rows = {row.model: row for row in await triton.index()}
        assert (rows["good"].version, rows["good"].state) == (1, "READY")
        assert (rows["bad"].version, rows["bad"].state) == (1, "UNAVAILABLE")
        assert rows["bad"].reason
        assert [await triton.version_ready(model, 1) for model in ("good", "bad", "none")] == [
            True,
            False,
            False,
        ]
        assert not await triton.version_ready("good", 9)

        assert await triton.config_fingerprint("good") == "aa"
        assert await triton.config_fingerprint("bad") is None
        assert await triton.config_fingerprint("none") is None
        await triton.load("good", a_text("good", [1], fingerprint="bb", delay=500), timeout=30)
        assert await triton.config_fingerprint("good") == "bb"
        assert await triton.version_ready("good", 1)

        with pytest.raises(TritonRefused) as raised:
            await triton.load("bad", a_text("bad", [1]), timeout=30)
        assert "bad" in raised.value.reason
        with pytest.raises(TritonRefused):
            await triton.load("none", a_text("none", [1]), timeout=30)

        await triton.unload("good")
        async with asyncio.timeout(10):
            while await triton.version_ready("good", 1):  # noqa: ASYNC110 - Triton tells nobody
                await asyncio.sleep(0.02)
        assert await triton.config_fingerprint("good") is None
        await triton.unload("none")

        async with connected(address, key="wrong") as stranger:
            assert await stranger.server_ready()
            for call in (stranger.index(), stranger.config_fingerprint("good"), stranger.unload("good")):
                with pytest.raises(TritonRefused, match="restricted"):
                    await call


async def test_text_that_is_no_configuration_is_not_sent(double: TritonDouble) -> None:
    async with connected(double.address) as triton:
        with pytest.raises(ValueError, match="not a model configuration"):
            await triton.load("good", "surprise: 1", timeout=1)
    assert not double.counts.loads


async def test_pod_that_is_gone_is_unreachable() -> None:
    async with connected("127.0.0.1:1", seconds=2) as triton:
        for call in (triton.server_ready(), triton.index(), triton.version_ready("good", 1)):
            with pytest.raises(TritonUnreachable):
                await call


async def test_hanging_pod_is_given_up_in_time(double: TritonDouble) -> None:
    double.faults.hang = True
    async with connected(double.address, seconds=0.2) as triton:
        with pytest.raises(TritonUnreachable):
            await triton.index()
        with pytest.raises(TritonUnreachable):
            await triton.load("good", a_text("good", [1]), timeout=0.2)


async def test_closing_ends_calls_under_way_as_unreachable(double: TritonDouble) -> None:
    double.faults.hang = True
    triton = Triton(double.address, control_key=KEY)
    call = asyncio.create_task(triton.index())
    await asyncio.sleep(0.1)
    await triton.close()
    with pytest.raises(TritonUnreachable):
        await call
    with pytest.raises(TritonUnreachable):
        await triton.index()


async def test_cancelled_call_stays_cancelled(double: TritonDouble) -> None:
    double.faults.hang = True
    async with connected(double.address) as triton:
        call = asyncio.create_task(triton.index())
        await asyncio.sleep(0.1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call


async def test_restarted_pod_is_reached_again(double: TritonDouble) -> None:
    async with connected(double.address) as triton:
        await triton.load("good", a_text("good", [1], fingerprint="bb"), timeout=5)
        double.stop()
        with pytest.raises(TritonUnreachable):
            await triton.index()
        double.start()
        async with asyncio.timeout(10):
            while True:
                with contextlib.suppress(TritonUnreachable):
                    if await triton.config_fingerprint("good") == "aa":
                        return
                await asyncio.sleep(0.1)
