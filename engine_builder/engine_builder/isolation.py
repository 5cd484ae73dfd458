"""Run a function in a child process: what a hostile or huge model does there ends there.

The native code that parses, runs and compiles models may crash, run out of memory or not return; the
job itself stays able to say so, to clean up, and to stop when told to.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import signal
import traceback
from typing import TYPE_CHECKING, ParamSpec, TypeVar, cast

from engine_builder.contract import Reason
from engine_builder.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

_P = ParamSpec("_P")
_T = TypeVar("_T")

_GRACE_SECONDS = 5
_CRASHES = frozenset({signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE})


@dataclasses.dataclass(frozen=True)
class Isolation:
    """A kind of work for a child process, and what is said of it when it does not come back."""

    work: str
    """What the child does: `examining the model`."""
    crashed: tuple[Reason, str]
    """Reason and message when native code crashes; `{signal}` is replaced."""
    out_of_memory: tuple[Reason, str]
    timed_out: tuple[Reason, str] = (Reason.DEADLINE_EXCEEDED, "")
    timeout_seconds: float | None = None
    stop_seconds: float = 0.0
    """How long the child may take to end by itself after SIGTERM; 0 kills it at once."""

    def run(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Return the function's result from a forked child.

        Raises:
            JobError: that of the function; what this isolation says of a crash, of too little memory
                and of too much time; `InternalError` when the child failed otherwise.
            Cancelled: this process was told to stop; the child has ended.
        """
        context = multiprocessing.get_context("fork")  # this process has no threads: nothing to break
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=self._child, args=(sender, lambda: function(*args, **kwargs)))
        child.start()
        sender.close()
        try:
            if not receiver.poll(self.timeout_seconds):
                raise JobError(*self.timed_out)
            result = receiver.recv()
            child.join(_GRACE_SECONDS)
        except EOFError:
            child.join()
            raise self._died(child.exitcode or 0) from None
        finally:
            self._stop(child)
            receiver.close()
        if isinstance(result, BaseException):
            raise result
        return cast("_T", result)

    def _stop(self, child: BaseProcess) -> None:
        if self.stop_seconds and child.is_alive():
            child.terminate()
            child.join(self.stop_seconds)
        child.kill()
        child.join()

    def _child(self, sender: Connection, work: Callable[[], object]) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            sender.send(work())
        except (JobError, OSError) as error:
            sender.send(error)
        except MemoryError:
            sender.send(JobError(*self.out_of_memory))
        except Exception as error:  # noqa: BLE001 - the border of the process
            traceback.print_exc()
            sender.send(JobError(Reason.INTERNAL_ERROR, f"{type(error).__name__}: {error}"))

    def _died(self, exit_code: int) -> JobError:
        number = -exit_code
        if number == signal.SIGKILL:
            return JobError(*self.out_of_memory)
        if number in _CRASHES:
            reason, message = self.crashed
            return JobError(reason, message.format(signal=signal.Signals(number).name))
        return JobError(Reason.INTERNAL_ERROR, f"the process for {self.work} ended with {exit_code}")


EXAMINING = Isolation(
    work="examining the model",
    crashed=(
        Reason.INVALID_MODEL,
        (
            "onnxruntime crashed on the model ({signal}): export it again, "
            "or try it with onnxruntime on your own machine"
        ),
    ),
    out_of_memory=(
        Reason.INTERNAL_ERROR,
        "examining the model ran out of memory: raise spec.prepare.resources of the ModelRepository",
    ),
)


def isolated(function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Return the result of a function that examines a model; see `Isolation.run`."""
    return EXAMINING.run(function, *args, **kwargs)
