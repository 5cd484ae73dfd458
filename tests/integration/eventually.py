"""Polling with a deadline, and messages that say what stood there at the end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from tests.integration.kube import ApiError

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")

DEADLINE_SECONDS = 30.0
PAUSE_SECONDS = 0.1


def eventually(
    check: Callable[[], Result], *, within: float = DEADLINE_SECONDS, because: Callable[[], str] | None = None
) -> Result:
    """Call until it fails no more, and return what it returned; `because` adds to the failure's message.

    What is not there yet (an index, a key, a 404) counts as a failed assertion.
    """
    deadline = time.monotonic() + within
    while True:
        try:
            return check()
        except (AssertionError, LookupError, ApiError) as error:
            if time.monotonic() > deadline:
                explained = f"\n{because()}" if because else ""
                raise AssertionError(f"not within {within:.0f} s: {error!r}{explained}") from error
        time.sleep(PAUSE_SECONDS)


def never(check: Callable[[], bool], *, for_seconds: float, message: str) -> None:
    """Watch for a while that something does not become true."""
    deadline = time.monotonic() + for_seconds
    while time.monotonic() < deadline:
        assert not check(), message
        time.sleep(PAUSE_SECONDS)
