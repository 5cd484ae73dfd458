"""One DNS question, to see that a Service's address and the cluster's DNS both work."""

import secrets
import socket
import struct

from localcluster.layout import CLUSTER_DOMAIN, DNS_ADDRESS

NAME = f"kubernetes.default.svc.{CLUSTER_DOMAIN}"
_HEADER = struct.Struct("!6H")


def question(identifier: int, name: str) -> bytes:
    """Return a query for the IPv4 address of a name."""
    header = _HEADER.pack(identifier, 0x0100, 1, 0, 0, 0)
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return header + labels + b"\0" + struct.pack("!2H", 1, 1)


def holds_answer(identifier: int, reply: bytes) -> bool:
    """Tell whether a reply belongs to the query, has no error and at least one answer."""
    if len(reply) < _HEADER.size:
        return False
    replied, flags, _, found, _, _ = _HEADER.unpack_from(reply)
    failed: int = flags & 0x000F
    return bool(replied == identifier and found and not failed)


def answers(*, seconds: float = 1.0) -> bool:
    """Ask the cluster's DNS through its Service for the API server's name."""
    identifier = secrets.randbelow(1 << 16)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        channel.settimeout(seconds)
        try:
            channel.sendto(question(identifier, NAME), (DNS_ADDRESS, 53))
            return holds_answer(identifier, channel.recv(4096))
        except OSError:
            return False
