"""Run a function in a child process: what a hostile or huge model does there ends there.

The native code that parses and runs models may crash, run out of memory or not return; the
job itself stays able to say so, to clean up, and to stop at once when told to.
"""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from typing import TYPE_CHECKING, ParamSpec, TypeVar, cast

from engine_builder.contract import Reason
from engine_builder.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

_P = ParamSpec("_P")
_T = TypeVar("_T")

_GRACE_SECONDS = 5


def isolated(function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Return the function's result from a forked child.

    Raises:
        JobError: that of the function; `InvalidModel` when the child crashed; `InternalError`
            when it was killed or failed otherwise.
    """
    context = multiprocessing.get_context("fork")  # this process has no threads: nothing to break
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_run, args=(sender, lambda: function(*args, **kwargs)))
    child.start()
    sender.close()
    try:
        result = receiver.recv()
        child.join(_GRACE_SECONDS)
    except EOFError:
        child.join()
        raise _died(child.exitcode or 0) from None
    finally:
        child.kill()
        child.join()
        receiver.close()
    if isinstance(result, BaseException):
        raise result
    return cast("_T", result)


def _run(sender: Connection, work: Callable[[], object]) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        sender.send(work())
    except (JobError, OSError) as error:
        sender.send(error)
    except MemoryError:
        sender.send(_out_of_memory())
    except Exception as error:  # noqa: BLE001 - the border of the process
        traceback.print_exc()
        sender.send(JobError(Reason.INTERNAL_ERROR, f"{type(error).__name__}: {error}"))


def _died(exit_code: int) -> JobError:
    number = -exit_code
    if number == signal.SIGKILL:
        return _out_of_memory()
    if number in {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE}:
        return JobError(
            Reason.INVALID_MODEL,
            f"onnxruntime crashed on the model ({signal.Signals(number).name}): export it again, "
            "or try it with onnxruntime on your own machine",
        )
    return JobError(Reason.INTERNAL_ERROR, f"the process that examines the model ended with {exit_code}")


def _out_of_memory() -> JobError:
    return JobError(
        Reason.INTERNAL_ERROR,
        "examining the model ran out of memory: raise spec.prepare.resources of the ModelRepository",
    )
