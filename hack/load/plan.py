"""What to send, where to, how often, and which answers are right."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, cycle

import numpy as np
from numpy.typing import NDArray

RELATIVE, ABSOLUTE = 1e-3, 1e-7
"""By how much a right answer may differ from the expected one."""


class Protocol(enum.StrEnum):
    """How a stream's requests travel."""

    HTTP_KEPT = "HTTP, kept connections"
    HTTP_NEW = "HTTP, a new connection each"
    GRPC = "gRPC"


@dataclass(frozen=True)
class Question:
    """One request, and the right answer of every version that may answer it."""

    model: str
    input_name: str
    input: NDArray[np.generic]
    output_name: str
    expected: Mapping[int, NDArray[np.generic]]
    """An answer from a version that is not among them is wrong, whatever it says."""


@dataclass(frozen=True)
class Stream:
    """A part of the requests that one kind of client sends to one address."""

    name: str
    protocol: Protocol
    address: str
    """`host:port` of a Service or of a pod."""
    version: int | None = None
    """The version that requests name; None: Triton takes the highest."""
    weight: int = 1
    """Share of the requests, relative to the other streams."""
    connections: int = 4
    """Connections that are kept, or gRPC channels; no matter for new connections."""
    max_age: float = 5.0
    """Seconds that an HTTP connection is kept at most. Triton never says `Connection: close`: a client that
    keeps one for longer than a pod takes to leave loses the request that is under way when the pod ends."""


@dataclass(frozen=True)
class Plan:
    """A constant rate of requests, dealt out to streams in turn."""

    question: Question
    streams: Sequence[Stream]
    rate: float = 200.0
    """Requests a second of all streams together."""
    timeout: float = 10.0
    """Seconds after which an unanswered request has failed."""


@dataclass(frozen=True)
class Arrival:
    """A request that is due."""

    after: float
    """Seconds since the load began."""
    stream: Stream = field(repr=False)


def arrivals(plan: Plan) -> Iterator[Arrival]:
    """Yield without end what is due when."""
    turns = cycle([stream for stream in plan.streams for _ in range(stream.weight)])
    for number in count():
        yield Arrival(number / plan.rate, next(turns))


def multiply(model: str, factors: Mapping[int, float], *, size: int = 4) -> Question:
    """Return a question to a model whose versions multiply `x` (FP32, [1, size]) by a factor into `y`."""
    numbers = np.arange(1, size + 1, dtype=np.float32).reshape(1, size)
    expected = {version: numbers * np.float32(factor) for version, factor in factors.items()}
    return Question(model=model, input_name="x", input=numbers, output_name="y", expected=expected)


def mixed(
    *, http: str, grpc: str, versions: Sequence[int | None] = (None, 1), weight: int = 1, prefix: str = ""
) -> tuple[Stream, ...]:
    """Return a stream for every protocol and version; `prefix` begins their names."""
    addresses = {Protocol.HTTP_KEPT: http, Protocol.HTTP_NEW: http, Protocol.GRPC: grpc}
    return tuple(
        Stream(
            name=f"{prefix}{protocol}{'' if version is None else f', version {version}'}",
            protocol=protocol,
            address=address,
            version=version,
            weight=weight,
        )
        for protocol, address in addresses.items()
        for version in versions
    )
