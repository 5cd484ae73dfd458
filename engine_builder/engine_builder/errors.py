"""Errors of jobs and keeper.

EngineBuilderError
├── JobError      how a job fails: a reason of the contract and a message for people
└── Refused       how the keeper says no: an HTTP status, a reason and a message
Cancelled         SIGTERM; a BaseException, so that no library swallows it
"""

from __future__ import annotations

import errno

from engine_builder.contract import Reason

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class EngineBuilderError(Exception):
    """Root of everything this package raises on purpose."""


class JobError(EngineBuilderError):
    """End a job with `reason`; `message` says what happened, to what, and what to do next."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return f"{self.reason.value}: {self.message}"


class Refused(EngineBuilderError):
    """End a request to the keeper with an HTTP status and a `KeeperError` body."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(status, reason, message)
        self.status = status
        self.reason = reason
        self.message = message


class Cancelled(BaseException):
    """Raised in the main thread when the pod is told to stop."""


def is_full(error: OSError) -> bool:
    """Tell whether the volume, or a quota on it, has no room left."""
    return error.errno in _FULL


def volume_fault(error: OSError) -> JobError:
    """Return the passing fault that an operating system error on the volume stands for."""
    reason = Reason.VOLUME_FULL if is_full(error) else Reason.VOLUME_ERROR
    where = f" ({error.filename})" if error.filename else ""
    advice = "free space or enlarge the volume" if is_full(error) else "will be tried again"
    return JobError(reason, f"{error.strerror or error}{where}: {advice}")
