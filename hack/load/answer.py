"""What a client brings back, and whether it is right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from load.plan import ABSOLUTE, RELATIVE, Question
from load.record import Outcome


@dataclass(frozen=True)
class Answer:
    """An answer's version and bytes, or why there is none."""

    version: int | None = None
    content: bytes = b""
    failed: Outcome | None = None
    error: str = ""


class Client(Protocol):
    """What sends the requests of one stream."""

    async def ask(self) -> tuple[str, Answer]:
        """Send the question once; return the name of the connection that it took, and what came of it."""

    async def close(self) -> None:
        """Close every connection."""


class Judge:
    """Knows the right answers; an answer that was right before is not computed again."""

    def __init__(self, question: Question) -> None:
        self._expected = question.expected
        self._known_right: set[tuple[int, bytes]] = set()

    def outcome(self, answer: Answer, *, asked: int | None) -> Outcome:
        """Say how a request ended."""
        if answer.failed is not None:
            return answer.failed
        if asked is not None and answer.version != asked:
            return Outcome.WRONG
        return Outcome.RIGHT if self._is_right(answer) else Outcome.WRONG

    def _is_right(self, answer: Answer) -> bool:
        if answer.version is None:
            return False
        if (answer.version, answer.content) in self._known_right:
            return True
        expected = self._expected.get(answer.version)
        if expected is None or len(answer.content) != expected.nbytes:
            return False
        given = np.frombuffer(answer.content, dtype=expected.dtype).reshape(expected.shape)
        right = bool(np.allclose(given, expected, rtol=RELATIVE, atol=ABSOLUTE))
        if right:
            self._known_right.add((answer.version, answer.content))
        return right
