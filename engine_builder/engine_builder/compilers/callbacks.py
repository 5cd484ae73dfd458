"""What TensorRT calls back: classes of ours, derived from those of whichever TensorRT is here.

Each calls `super().__init__()`, without which TensorRT refuses the object. None may raise: TensorRT swallows
it, and cancels the build for an exception of the monitor.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from engine_builder.compilers import explain
from engine_builder.compilers.monitor import Percent

if TYPE_CHECKING:
    from engine_builder.compilers.monitor import Stop, Teller
    from engine_builder.compilers.plan_file import PlanFile
    from engine_builder.progress import Progress


def logger(trt: Any, errors: list[str], warnings: list[str], progress: Progress) -> Any:
    """Return a logger that keeps errors and warnings, and tells people the errors."""
    bad = (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR)

    class Logger(trt.ILogger):  # type: ignore[misc]  # a class of a module that is not typed
        def __init__(self) -> None:
            super().__init__()

        def log(self, severity: Any, msg: str) -> None:
            if severity in bad:
                errors.append(msg)
                if not explain.is_noise(msg):
                    progress.say(f"TensorRT: {explain.clean(msg)}")
            elif severity == trt.ILogger.WARNING:
                warnings.append(msg)

    return Logger()


def writer(trt: Any, plan: PlanFile) -> Any:
    """Return a stream writer that fills a plan; TensorRT heeds neither what it returns nor what it raises."""

    class Writer(trt.IStreamWriter):  # type: ignore[misc]  # a class of a module that is not typed
        def __init__(self) -> None:
            super().__init__()

        def write(self, data: Any) -> int:
            return plan.take(data)

    return Writer()


def monitor(trt: Any, teller: Teller, stop: Stop) -> Any:
    """Return a progress monitor of that TensorRT; TensorRT may call it from threads of its own."""
    percent, lock = Percent(), threading.Lock()

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # a class of a module that is not typed
        def __init__(self) -> None:
            super().__init__()  # without it TensorRT refuses the object

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with lock:
                percent.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            with lock:
                percent.step(phase_name, step)
                teller.tell(percent.value)
            return not stop.requested

        def phase_finish(self, phase_name: str) -> None:
            with lock:
                percent.finish(phase_name)

    return Monitor()
