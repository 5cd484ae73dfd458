"""The client against the real keeper, over real HTTP."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import aiohttp
import pytest

from engine_builder.api import KeeperServer
from engine_builder.contract import CheckRequest, ModelTree, SweepRequest, TreeManifest
from engine_builder.keeper import Keeper as RealKeeper
from engine_builder.volume import Owner
from triton_operator.clients.keeper import Keeper, KeeperRefused, KeeperUnreachable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

KEY = b"k" * 32
ENGINE = "onnxruntime-0123456789abcdef"


@pytest.fixture
def real(tmp_path: Path) -> Iterator[RealKeeper]:
    keeper = RealKeeper(tmp_path, Owner("cluster", "vision", "claim"))
    yield keeper
    keeper.stop()


@pytest.fixture
def address(real: RealKeeper) -> Iterator[str]:
    with KeeperServer(("127.0.0.1", 0), keeper=real, key=KEY) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def keeper(session: aiohttp.ClientSession, address: str, real: RealKeeper) -> Keeper:
    real.start()
    return Keeper(session, address, KEY)


async def test_snapshot_shows_the_trees_that_were_put(keeper: Keeper) -> None:
    assert (await keeper.snapshot()).trees == ()
    manifest = TreeManifest(models=())
    state = await keeper.put_tree("default", "24.10", manifest)
    assert (state.server, state.release, state.revision) == ("default", "24.10", manifest.revision)
    snapshot = await keeper.snapshot()
    assert snapshot.trees == (state,)
    assert snapshot.volume.rename
    assert snapshot.volume.bytes_total > 0


async def test_sweep_removes_the_tree_that_is_not_named(keeper: Keeper) -> None:
    await keeper.put_tree("default", "24.10", TreeManifest(models=()))
    result = await keeper.sweep(SweepRequest(engines=(), trees=(), staging=()))
    assert result.trees == ("default/24.10",)
    assert (await keeper.snapshot()).trees == ()


async def test_refusal_keeps_the_keepers_words(keeper: Keeper) -> None:
    model = ModelTree(name="det", config='name: "det"', versions={"1": ENGINE})
    with pytest.raises(KeeperRefused) as raised:
        await keeper.put_tree("default", "24.10", TreeManifest(models=(model,)))
    assert ENGINE in raised.value.message
    assert not raised.value.passing


@pytest.mark.parametrize("call", ["check", "report"])
async def test_engine_that_is_not_in_the_store_is_refused(keeper: Keeper, call: str) -> None:
    request = CheckRequest(
        address="127.0.0.1:1", model="det", version="1", engine=ENGINE, minimum_cosine=0.99
    )
    with pytest.raises(KeeperRefused) as raised:
        await (keeper.check(request) if call == "check" else keeper.report(ENGINE))
    assert (raised.value.status, raised.value.reason) == (404, "EngineMissing")


async def test_names_are_sent_as_they_were_signed(keeper: Keeper) -> None:
    with pytest.raises(KeeperRefused) as raised:
        await keeper.put_tree("../../etc", "24.10", TreeManifest(models=()))
    assert raised.value.reason in ("InvalidName", "NotFound")


async def test_keeper_that_is_not_ready_is_a_passing_refusal(
    session: aiohttp.ClientSession, address: str
) -> None:
    keeper = Keeper(session, address, KEY)
    with pytest.raises(KeeperRefused) as raised:
        await keeper.put_tree("default", "24.10", TreeManifest(models=()))
    assert raised.value.reason == "Starting"
    assert raised.value.passing


async def test_wrong_key_is_refused(session: aiohttp.ClientSession, address: str) -> None:
    with pytest.raises(KeeperRefused, match="signature"):
        await Keeper(session, address, b"x" * 32).snapshot()


async def test_keeper_that_is_not_there_is_unreachable(session: aiohttp.ClientSession) -> None:
    with pytest.raises(KeeperUnreachable, match="does not answer"):
        await Keeper(session, "127.0.0.1:1", KEY).snapshot()


async def test_hanging_keeper_is_given_up(session: aiohttp.ClientSession) -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(hang, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(KeeperUnreachable, match="did not answer"):
            await Keeper(session, f"127.0.0.1:{port}", KEY)._send("GET", "/v1/snapshot", seconds=0.05)


async def test_something_else_at_the_address_is_unreachable(session: aiohttp.ClientSession) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 5\r\n\r\n<htm>")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(KeeperUnreachable, match="HTTP 502"):
            await Keeper(session, f"127.0.0.1:{port}", KEY).snapshot()
