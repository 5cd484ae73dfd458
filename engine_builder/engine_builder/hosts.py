"""Which hosts sources may come from, and which addresses never: pure rules, for operator and jobs alike.

An entry of the allow list is a host name (`minio.storage.svc:9000`), a domain and all below it
(`*.s3.eu-central-1.amazonaws.com`), or an address (`10.0.0.7:443`, `[fd00::7]:443`). Without a
port it means port 443.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Iterable

HTTPS_PORT = 443

_ENTRY = re.compile(
    r"(?P<host>(\*\.)?[a-z0-9]([-a-z0-9._]*[a-z0-9])?|\[[0-9a-f:.]+\])(:(?P<port>[0-9]{1,5}))?"
)
_HIGHEST_PORT = 65535

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_METADATA = frozenset(
    ipaddress.ip_address(text)
    for text in (
        "169.254.169.254",  # most clouds
        "100.100.100.200",  # Alibaba
        "168.63.129.16",  # Azure's host agent
        "192.0.0.192",  # Oracle
        "fd00:ec2::254",  # AWS
        "fd20:ce::254",  # Google
    )
)
_NAT64 = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))
_COMPATIBLE = ipaddress.IPv6Network("::/96")


@dataclasses.dataclass(frozen=True)
class Entry:
    """One line of the allow list; `host` is lower case and without brackets."""

    host: str
    port: int

    def allows(self, host: str, port: int) -> bool:
        """Tell whether this line allows connections to a host by this name."""
        if port != self.port:
            return False
        if self.host.startswith("*."):
            return host.endswith(self.host[1:]) and host != self.host[1:]
        return host == self.host

    def is_address(self, address: Address, port: int) -> bool:
        """Tell whether this line is that very address and port."""
        return port == self.port and to_address(self.host) == address


def parse(text: str) -> Entry:
    """Read a line of the allow list.

    Raises:
        ValueError: it is not of the form that the module's docstring tells.
    """
    found = _ENTRY.fullmatch(text.lower())
    port = int(found["port"] or HTTPS_PORT) if found else 0
    if found is None or not 0 < port <= _HIGHEST_PORT:
        raise ValueError(f"{text!r} is not a host, a *.domain or an address, with or without :<port>")
    return Entry(normalised(found["host"]), port)


def normalised(host: str) -> str:
    """Return a host's name as it is compared: lower case, no brackets, no dot at the end."""
    name = host.lower().strip("[]").rstrip(".")
    address = to_address(name)
    return str(address) if address is not None else name


def is_allowed(entries: Iterable[Entry], host: str, port: int) -> bool:
    """Tell whether the allow list names a host."""
    return any(entry.allows(normalised(host), port) for entry in entries)


def to_address(text: str) -> Address | None:
    """Return the address that a text is, or None; a zone (`%eth0`) is dropped."""
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None


def never(address: Address) -> str | None:
    """Return what kind of address this is when nobody may be sent there, else None.

    Private addresses are fine: a store of the cluster's own has one, and its host must be allowed.
    """
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    for each in (mapped or address, *_embedded(address)):
        kind = _kind(each)
        if kind is not None:
            return kind
    return None


def _kind(address: Address) -> str | None:
    if address in _METADATA:
        return "a metadata service's"
    kinds = {
        "a loopback": address.is_loopback,
        "a link-local": address.is_link_local,
        "a multicast": address.is_multicast,
        "an unspecified": address.is_unspecified,
        "a reserved": address.is_reserved and not _is_translated(address),
    }
    if address.version == 4 and int(address) >> 24 == 0:  # noqa: PLR2004 - 0.0.0.0/8 is "this network"
        return "an unspecified"
    return next((kind for kind, applies in kinds.items() if applies), None)


def _is_translated(address: Address) -> bool:
    return any(address in network for network in (*_NAT64, _COMPATIBLE))


def _embedded(address: Address) -> list[Address]:
    """Return the IPv4 addresses that an IPv6 address may lead to."""
    if not isinstance(address, ipaddress.IPv6Address):
        return []
    found: list[Address | None] = [address.sixtofour, *(address.teredo or ())]
    if _is_translated(address):
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
    return [each for each in found if each is not None]
