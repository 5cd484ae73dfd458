"""Start the process that sends, and collect what it writes."""

from __future__ import annotations

import pickle
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from load.generator import STARTED
from load.plan import Plan
from load.record import Record, from_line

_END_SECONDS = 30.0
"""So much longer than a request's own timeout the process may take to end."""


class LoadError(Exception):
    """The process that sends ended by itself; the message holds what it said."""


class Run:
    """A load under way."""

    def __init__(self, process: subprocess.Popen[bytes], said: IO[str], *, timeout: float) -> None:
        self._process = process
        self._said = said
        self._timeout = timeout
        self._records: list[Record] = []
        self.began = self._wait_started()
        """When the first request was due, by `time.monotonic()`."""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def records(self) -> list[Record]:
        """Return what ended so far, in the order of the ends; it lags behind by a fraction of a second."""
        return list(self._records)

    def stop(self) -> list[Record]:
        """Begin no more requests, wait for those under way, and return all records.

        Raises:
            LoadError: the process did not live to tell.
        """
        assert self._process.stdin is not None  # noqa: S101 - Popen was given a pipe
        if not self._process.stdin.closed:
            self._process.stdin.close()
        try:
            status = self._process.wait(self._timeout + _END_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise LoadError(f"the load does not end:\n{self._words()}") from error
        self._reader.join()
        if status != 0:
            raise LoadError(f"the load ended with status {status}:\n{self._words()}")
        return self.records()

    def _wait_started(self) -> float:
        assert self._process.stdout is not None  # noqa: S101 - Popen was given a pipe
        word, _, moment = self._process.stdout.readline().decode().partition(" ")
        if word != STARTED:
            raise LoadError(f"the load does not begin:\n{self._words()}")
        return float(moment)

    def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - Popen was given a pipe
        for line in self._process.stdout:
            self._records.append(from_line(line.decode()))

    def _words(self) -> str:
        self._said.seek(0)
        return self._said.read()


@contextmanager
def running(plan: Plan) -> Iterator[Run]:
    """Have a load run while the context is open.

    Raises:
        LoadError: the process that sends does not come up.
    """
    command = [sys.executable, str(Path(__file__).parent)]
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said) as process,
    ):
        try:
            assert process.stdin is not None  # noqa: S101 - Popen was given a pipe
            process.stdin.write(pickle.dumps(plan))
            process.stdin.flush()
            yield Run(process, said, timeout=plan.timeout)
        finally:
            if process.poll() is None:
                process.kill()
