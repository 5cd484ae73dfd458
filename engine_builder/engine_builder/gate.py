"""The gate of a process: it connects to hosts that are allowed, at addresses that were looked at, or nowhere.

Whichever library asks, every name is looked up here and every connection is reported by the interpreter
(audit event `socket.connect`) with the address itself. So a redirect, a name that suddenly
resolves to something else, or an address written in an unusual way leads nowhere. The gate is
never taken out again: it belongs into a process of its own (`confined`).
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from typing import Any

from engine_builder import hosts
from engine_builder.errors import EngineBuilderError

_ADDRESS_PARTS = 2
_Lookup = list[tuple[Any, Any, int, str, Any]]


class GateError(EngineBuilderError):
    """No way through. It is no OSError, which libraries take for a network that will be better soon."""


class Gate:
    """An allow list, and what became of it. `refusal` says what was last turned away, and why."""

    def __init__(self, allowed: Sequence[hosts.Entry]) -> None:
        self._allowed = tuple(allowed)
        self._approved: set[tuple[str, int]] = set()
        self.refusal = ""

    def install(self) -> None:
        """Stand in the way of everything that this process connects to from now on."""
        for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
            del os.environ[name]  # a proxy would connect where we cannot look
        look_up = socket.getaddrinfo

        def getaddrinfo(host: Any, port: Any, *args: Any, **kwargs: Any) -> _Lookup:
            name = host.decode() if isinstance(host, bytes) else str(host or "")
            number = int(port) if str(port).isdecimal() else 0  # a service's name is no port that is allowed
            self.require_host(name, number)
            return self.admitted(name, number, look_up(host, port, *args, **kwargs))

        socket.getaddrinfo = getaddrinfo
        sys.addaudithook(self._audit)

    def require_host(self, host: str, port: int) -> None:
        """Let pass what the list names.

        Raises:
            GateError: the list does not name it.
        """
        if not hosts.is_allowed(self._allowed, host, port):
            self._refuse(
                f"host {host}, port {port} is not allowed: add {_entry(host, port)} to spec.allowedHosts of "
                "the ModelRepository"
            )

    def admitted(self, host: str, port: int, found: _Lookup) -> _Lookup:
        """Return of a name's addresses those that may be connected to.

        Raises:
            GateError: there is none.
        """
        good = []
        for each in found:
            address = hosts.to_address(each[4][0])
            if address is not None and self._why_not(address, port) is None:
                self._approved.add((str(address), port))
                good.append(each)
        if not good:
            shown = ", ".join(sorted({str(each[4][0]) for each in found})) or "no address"
            self._refuse(f"host {host} resolves to {shown}, which no source may be read from")
        return good

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in {"socket.connect", "socket.sendto", "socket.sendmsg"}:
            self.check_connection(arguments[1])  # no tuple where a message has no address of its own

    def check_connection(self, target: Any) -> None:
        """Let a connection pass whose address was looked up here, or stands in the list itself.

        Raises:
            GateError: it is another one.
        """
        if not isinstance(target, tuple) or len(target) < _ADDRESS_PARTS:
            return  # a socket of this machine's file system
        host, port = str(target[0]), int(target[1])
        address = hosts.to_address(host)
        if address is None:
            self._refuse(f"{host}, port {port} was not looked up before")
            return
        if (str(address), port) in self._approved:
            return
        if not hosts.is_allowed(self._allowed, str(address), port):
            self._refuse(
                f"host {host}, port {port} is not allowed: add {_entry(host, port)} to spec.allowedHosts of "
                "the ModelRepository"
            )
        why = self._why_not(address, port)
        if why is not None:
            self._refuse(f"host {host} is {why} address, which no source may be read from")

    def _why_not(self, address: hosts.Address, port: int) -> str | None:
        kind = hosts.never(address)
        if kind is None or (address.is_loopback and any(e.is_address(address, port) for e in self._allowed)):
            return None
        return kind

    def _refuse(self, why: str) -> None:
        self.refusal = why
        raise GateError(why)


def _entry(host: str, port: int) -> str:
    name = f"[{host}]" if ":" in host else host
    return name if port == hosts.HTTPS_PORT else f"{name}:{port}"
