"""Polling with a deadline, and messages that say what stood there at the end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

import grpc
from tests.integration.kube import ApiError

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")

DEADLINE_SECONDS = 30.0
PAUSE_SECONDS = 0.1
RETRIED = (AssertionError, LookupError, ValueError, ApiError, grpc.RpcError)
"""What is not there yet shows as a missing index or key, one element too few, a 404, NOT_FOUND."""


def eventually(
    check: Callable[[], Result], *, within: float = DEADLINE_SECONDS, because: Callable[[], str] | None = None
) -> Result:
    """Call until it fails no more, and return what it returned; `because` adds to the failure's message."""
    deadline = time.monotonic() + within
    while True:
        try:
            return check()
        except RETRIED as error:
            if time.monotonic() > deadline:
                explained = f"\n{because()}" if because else ""
                raise AssertionError(f"not within {within:.0f} s: {error!r}{explained}") from error
        time.sleep(PAUSE_SECONDS)
