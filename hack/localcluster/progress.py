"""Tell the user what happens: one line for each step, and a sign of life while one takes long."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

HEARTBEAT_SECONDS = 15.0


def say(text: str) -> None:
    """Print a line to stderr: stdout is for results that scripts read."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def step(name: str) -> Iterator[None]:
    """Announce a step, with its elapsed seconds when it is done."""
    began = time.monotonic()
    done = threading.Event()
    beat = threading.Thread(target=_beat, args=(name, began, done), daemon=True)
    beat.start()
    try:
        yield
    finally:
        done.set()
        beat.join()
    say(f"  {name:<44} {time.monotonic() - began:6.1f} s")


def _beat(name: str, began: float, done: threading.Event) -> None:
    while not done.wait(HEARTBEAT_SECONDS):
        say(f"  {name:<44} {time.monotonic() - began:6.0f} s ... still running")
