"""What runs behind the gate, in real child processes."""

from __future__ import annotations

import itertools
import os
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from engine_builder import hosts
from engine_builder.confined import Confined
from engine_builder.contract import Reason
from engine_builder.credentials import Credentials
from engine_builder.errors import JobError
from engine_builder.gate import Gate
from engine_builder.remote import Found, Interrupted

URI = "https://models.example/1.onnx"


class Asked:
    """Objects whose every file is what a function does with its path."""

    def __init__(self, do: Callable[[str], Any]) -> None:
        self._do = do

    def find(self, path: str) -> Found:
        return Found(size=1, tag=str(self._do(path)))

    def names(self, path: str) -> list[str]:
        return [str(os.getpid())]

    def read(self, path: str, found: Found, start: int) -> Iterator[bytes]:
        yield from self._do(path)

    def close(self) -> None:
        """Nothing to close."""


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def _confined(do: Callable[[str], Any], *lines: str, **secret: str) -> Confined:
    gate = Gate([hosts.parse(line) for line in lines])
    return Confined(lambda: Asked(do), gate=gate, uri=URI, credentials=Credentials(secret))


def _connect(address: tuple[str, int]) -> None:
    socket.create_connection(address, timeout=5).close()


def _connect_directly(address: tuple[str, int]) -> None:
    with socket.socket() as plain:
        plain.connect(address)


def _send_directly(address: tuple[str, int]) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as plain:
        plain.sendto(b"x", address)


@pytest.mark.parametrize("way", [_connect, _connect_directly, _send_directly])
def test_a_child_connects_where_the_list_says_and_nowhere_else(
    listener: socket.socket, way: Callable[[tuple[str, int]], None]
) -> None:
    address = listener.getsockname()
    line = f"{address[0]}:{address[1]}"
    closed = _confined(lambda _: way(address), "models.example")
    with pytest.raises(JobError, match=f"add {line} to spec.allowedHosts") as caught:
        closed.find("x")
    assert caught.value.reason is Reason.HOST_NOT_ALLOWED
    closed.close()
    opened = _confined(lambda _: way(address), line)
    assert opened.find("x").size == 1
    opened.close()
    way(address)  # this process has no gate


def test_a_child_that_is_killed_is_told_and_replaced() -> None:
    confined = _confined(lambda path: os.kill(os.getpid(), signal.SIGKILL) if path == "die" else path)
    with pytest.raises(JobError, match=r"spec\.prepare\.resources") as caught:
        confined.find("die")
    assert caught.value.reason is Reason.INTERNAL_ERROR
    assert confined.find("live").tag == "live"
    confined.close()


def test_a_reading_that_nobody_wants_any_more_ends_its_child() -> None:
    confined = _confined(lambda _: itertools.repeat(b"x" * 4096))
    (before,) = confined.names("")
    pieces = confined.read("x", Found(1 << 40, "1"), 0)
    assert len(next(pieces)) == 4096
    pieces.close()  # type: ignore[attr-defined]
    with pytest.raises(ProcessLookupError):
        os.kill(int(before), 0)
    assert confined.names("") != [before]
    confined.close()


def test_a_reading_that_was_interrupted_leaves_its_child_for_the_next() -> None:
    def broken(_path: str) -> Iterator[bytes]:
        yield b"x"
        raise Interrupted("the transfer broke")

    confined = _confined(broken)
    before = confined.names("")
    with pytest.raises(Interrupted, match="the transfer broke"):
        list(confined.read("x", Found(2, "1"), 0))
    assert confined.names("") == before
    confined.close()


def test_a_fault_of_a_library_is_told_without_what_is_secret(capfd: pytest.CaptureFixture[str]) -> None:
    def fail(_path: str) -> None:
        raise RuntimeError("Authorization: Bearer hush-hush")

    confined = _confined(fail, token="hush-hush")
    with pytest.raises(JobError, match="RuntimeError") as caught:
        confined.find("x")
    confined.close()
    assert caught.value.reason is Reason.INTERNAL_ERROR
    said = capfd.readouterr()
    assert "Traceback" in said.out
    assert "hush" not in caught.value.message + said.out + said.err
