"""Send what a plan says, when it says so, until stdin ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from load.answer import Client, Judge
from load.over_grpc import Channels
from load.over_http import KeptConnections, NewConnections
from load.plan import Arrival, Plan, Protocol, Stream, arrivals
from load.record import Record, to_line

STARTED = "started"
"""First word of the line that says that the load begins."""
_CLIENTS: Mapping[Protocol, Callable[..., Client]] = {
    Protocol.HTTP_KEPT: KeptConnections,
    Protocol.HTTP_NEW: NewConnections,
    Protocol.GRPC: Channels,
}
_WRITE_SECONDS = 0.2


def main() -> None:
    """Read a plan, carry it out, write a record for each request."""
    _come_first()
    plan: Plan = pickle.load(sys.stdin.buffer)  # noqa: S301 - the process that started this one wrote it
    asyncio.run(_Generator(plan).run())


def _come_first() -> None:
    """Have the processor before all others: that this process waits for it must not be their fault.

    Linux may weigh sessions against each other before it looks at niceness (sched(7), autogroup).
    """
    with contextlib.suppress(PermissionError):
        os.nice(-20)
    with contextlib.suppress(OSError):
        os.setsid()
        Path("/proc/self/autogroup").write_text("-20")


class _Generator:
    """The requests of a plan."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._judge = Judge(plan.question)
        self._records: list[Record] = []
        self._stopped = asyncio.Event()
        self._ended = False

    async def run(self) -> None:
        """Send until stdin ends, then wait for what is under way."""
        self._stop_with_stdin()
        clients = {
            stream: _CLIENTS[stream.protocol](stream, self._plan.question, timeout=self._plan.timeout)
            for stream in self._plan.streams
        }
        began = time.monotonic()
        print(STARTED, began, flush=True)
        writing = asyncio.create_task(self._write_regularly())
        try:
            async with asyncio.TaskGroup() as under_way:
                await self._send(clients, under_way, began=began)
        finally:
            self._ended = True
            await writing
            await asyncio.gather(*(client.close() for client in clients.values()))

    async def _send(
        self, clients: Mapping[Stream, Client], under_way: asyncio.TaskGroup, *, began: float
    ) -> None:
        for arrival in arrivals(self._plan):
            await asyncio.sleep(max(0.0, began + arrival.after - time.monotonic()))
            if self._stopped.is_set():
                return
            under_way.create_task(self._ask(clients[arrival.stream], arrival, began + arrival.after))

    async def _ask(self, client: Client, arrival: Arrival, scheduled: float) -> None:
        started = time.monotonic()
        connection, answer = await client.ask()
        ended = time.monotonic()
        asked = arrival.stream.version
        record = Record(
            stream=arrival.stream.name,
            connection=connection,
            asked=asked,
            scheduled=scheduled,
            started=started,
            ended=ended,
            outcome=self._judge.outcome(answer, asked=asked),
            answered=answer.version,
            error=answer.error,
        )
        self._records.append(record)

    async def _write_regularly(self) -> None:
        last = False
        while not last:
            last = self._ended
            await asyncio.sleep(0 if last else _WRITE_SECONDS)
            written, self._records = self._records, []
            await asyncio.to_thread(_write, written)  # a reader that is slow doesn't hold up the requests

    def _stop_with_stdin(self) -> None:
        loop = asyncio.get_running_loop()

        def wait() -> None:
            sys.stdin.buffer.read()
            loop.call_soon_threadsafe(self._stopped.set)

        threading.Thread(target=wait, daemon=True).start()


def _write(records: Sequence[Record]) -> None:
    sys.stdout.write("".join(map(to_line, records)))
    sys.stdout.flush()
