"""A scheme's libraries in a child process of their own, behind a gate.

What they need of memory and threads ends with the child, and the process that forks others
to look at models has neither. The gate can't be taken out of a process again either.
"""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, cast

from engine_builder.contract import Reason
from engine_builder.errors import JobError
from engine_builder.remote import Found, Interrupted, Objects

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

    from engine_builder.credentials import Credentials
    from engine_builder.gate import Gate

_VALUE, _PIECE, _ERROR = "value", "piece", "error"


class Confined:
    """Objects of a scheme that are asked in a child process; it starts with the first question."""

    def __init__(
        self, make: Callable[[], Objects], *, gate: Gate, uri: str, credentials: Credentials
    ) -> None:
        self._make, self._gate, self._uri, self._credentials = make, gate, uri, credentials
        self._child: BaseProcess | None = None
        self._pipe: Connection | None = None

    def find(self, path: str) -> Found | None:
        """Return a file as it is now, or None where the path is that of a directory."""
        return cast("Found | None", self._value("find", path))

    def names(self, path: str) -> list[str]:
        """Return what lies in a directory."""
        return cast("list[str]", self._value("names", path))

    def read(self, path: str, found: Found, start: int) -> Iterator[bytes]:
        """Yield a file's bytes from `start` on."""
        pipe = self._ask("read", path, found, start)
        while (reply := self._reply(pipe))[0] == _PIECE:
            try:
                yield cast("bytes", reply[1])
            except GeneratorExit:  # nobody wants the rest, which the child goes on sending
                self.close()
                raise

    def close(self) -> None:
        """End the child; the next question starts another."""
        if self._child is not None:
            self._child.kill()
            self._child.join()
        if self._pipe is not None:
            self._pipe.close()
        self._child = self._pipe = None

    def _value(self, name: str, *arguments: object) -> object:
        return self._reply(self._ask(name, *arguments))[1]

    def _ask(self, name: str, *arguments: object) -> Connection:
        pipe = self._pipe or self._start()
        try:
            pipe.send((name, arguments))
        except OSError as error:
            raise self._died() from error
        return pipe

    def _reply(self, pipe: Connection) -> tuple[str, object]:
        try:
            kind, content = pipe.recv()
        except (EOFError, OSError) as error:
            raise self._died() from error
        if kind == _ERROR:
            raise content
        return kind, content

    def _start(self) -> Connection:
        context = multiprocessing.get_context("fork")  # this process has no threads: nothing to break
        ours, theirs = context.Pipe()
        self._child = context.Process(target=self._serve, args=(theirs, ours), daemon=True)
        self._child.start()
        theirs.close()
        self._pipe = ours
        return ours

    def _died(self) -> JobError:
        code = self._child.exitcode if self._child else None
        self.close()
        return JobError(
            Reason.INTERNAL_ERROR,
            f"{self._uri}: the process that reads it ended ({code}): if it was killed for memory, raise "
            "spec.prepare.resources of the ModelRepository",
        )

    # in the child

    def _serve(self, pipe: Connection, other_end: Connection) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        other_end.close()  # or the end of the parent would not show
        self._gate.install()
        objects: Objects | None = None
        while True:
            try:
                name, arguments = pipe.recv()
            except EOFError:
                return
            self._gate.refusal = ""
            try:
                objects = objects or self._make()
                pipe.send((_VALUE, _answer(pipe, getattr(objects, name)(*arguments))))
            except BrokenPipeError:
                return
            except Exception as error:  # noqa: BLE001 - the border of the process
                pipe.send((_ERROR, self._told(error)))

    def _told(self, error: Exception) -> Exception:
        """Return what the parent is told: the gate's word counts first, and no secret is in it."""
        if self._gate.refusal:
            return JobError(Reason.HOST_NOT_ALLOWED, f"{self._uri}: {self._gate.refusal}")
        hide = self._credentials.hide
        if isinstance(error, JobError):
            return JobError(error.reason, hide(error.message))
        if isinstance(error, Interrupted):
            return Interrupted(hide(str(error)))
        print(hide("".join(traceback.format_exception(error))), flush=True)
        return JobError(
            Reason.INTERNAL_ERROR,
            hide(f"{self._uri}: {type(error).__name__}: {error} (see the log of the pod)"),
        )


def _answer(pipe: Connection, result: object) -> object:
    """Send the pieces of a reading, and return what follows them: any other result itself."""
    if not isinstance(result, Iterator):
        return result
    for piece in result:
        pipe.send((_PIECE, piece))
    return None
