"""Run a job's work and tell its outcome: termination log, last line, exit code."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import sys
import traceback
from typing import TYPE_CHECKING

from engine_builder import faults
from engine_builder.contract import Reason, Report
from engine_builder.errors import Cancelled, JobError, volume_fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import FrameType

    from engine_builder.progress import Progress


def run_job(
    work: Callable[[], Report], *, engine: str, progress: Progress, termination_log: Path | None
) -> int:
    """Do the work and return the exit code; never raises and never shows a traceback as the outcome."""
    with _cancellable():
        report = _outcome(work)
    report = dataclasses.replace(report, engine=report.engine or engine, seconds=progress.seconds)
    if termination_log is not None:
        _write(termination_log, report)
        faults.point("job.report", report.reason.value)
    progress.say(f"{report.reason.value}: {report.message}")
    return int(report.exit_code)


def _outcome(work: Callable[[], Report]) -> Report:
    try:
        return work()
    except Cancelled:
        return Report(Reason.CANCELLED, "the pod was told to stop; the next attempt starts afresh")
    except JobError as error:
        return Report(error.reason, error.message)
    except OSError as error:
        fault = volume_fault(error)
        return Report(fault.reason, fault.message)
    except Exception as error:  # noqa: BLE001 - the border of the process
        traceback.print_exc(file=sys.stderr)
        return Report(Reason.INTERNAL_ERROR, f"{type(error).__name__}: {error} (see the log of the pod)")


@contextlib.contextmanager
def _cancellable() -> Iterator[None]:
    """Turn the first SIGTERM or SIGINT into `Cancelled`; cleaning up is not interrupted again."""

    def cancel(_number: int, _frame: FrameType | None) -> None:
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        raise Cancelled

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, cancel)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _write(path: Path, report: Report) -> None:
    try:
        path.write_text(report.to_termination_message(), encoding="utf-8")
    except OSError as error:
        print(f"the termination log {path} cannot be written: {error.strerror}", file=sys.stderr)
