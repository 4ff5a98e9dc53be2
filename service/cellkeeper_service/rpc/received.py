"""How many bytes have come over each connection, as the kernel counts them. gRPC for Python tells of whole messages
only."""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from struct import Struct
from struct import error as StructError
from urllib.parse import unquote

DESCRIPTORS = Path("/proc/self/fd")
LEVEL = getattr(socket, "IPPROTO_TCP", 6)
TCP_INFO: int | None = getattr(socket, "TCP_INFO", None)
INFO_BYTES = 256
BYTES_RECEIVED = Struct("<128xQ")
"""Of Linux's struct tcp_info, since 4.1."""
MAPPED = "::ffff:"  # an IPv4 address on a socket for IPv6


class Received:
    """Finds the connections of this process by their peers. Knows none where the system does not tell: `is_known`."""

    def __init__(self) -> None:
        self._descriptors: dict[str, int] = {}  # by peer

    @property
    def is_known(self) -> bool:
        return TCP_INFO is not None and DESCRIPTORS.is_dir()

    def of(self, peers: Collection[str]) -> dict[str, int]:
        """Bytes by peer, of those whose connection is open. peers: as gRPC names them."""
        if not self.is_known:
            return {}
        found: dict[str, int] = {}
        known, self._descriptors = self._descriptors, {}
        for peer in peers:
            if peer in known:
                self._take(known[peer], {plain(peer): peer}, found)
        missing = {plain(peer): peer for peer in peers if peer not in found}
        if missing:
            seen = set(self._descriptors.values())
            for name in os.listdir(DESCRIPTORS):
                if int(name) not in seen:
                    self._take(int(name), missing, found)
        return found

    def cut(self, peer: str) -> None:
        """Ends the peer's connection, and with it whatever goes on there."""
        descriptor = self._descriptors.get(peer)
        if descriptor is None:
            return
        try:
            with _borrowed(descriptor) as connection:
                if _name(connection.getpeername()) == plain(peer):
                    connection.shutdown(socket.SHUT_RDWR)
        except OSError:  # it has ended by itself
            return

    def _take(self, descriptor: int, wanted: dict[str, str], found: dict[str, int]) -> None:
        """Whether it is one of them: a descriptor may be closed, and be another's, at any time."""
        try:
            with _borrowed(descriptor) as connection:
                peer = wanted.get(_name(connection.getpeername()))
                if peer is not None:
                    info = connection.getsockopt(LEVEL, TCP_INFO or 0, INFO_BYTES)
                    (found[peer],) = BYTES_RECEIVED.unpack_from(info)
                    self._descriptors[peer] = descriptor
        except (OSError, StructError):  # no connection, or closed already; or a kernel that does not count
            return


@contextmanager
def _borrowed(descriptor: int) -> Iterator[socket.socket]:
    """A socket of somebody else, who closes it. Raises OSError where it is none.

    Not a copy: to close one of a file, even by mistake, would take away every lock that this process has on that file
    (fcntl(2)), and SQLite's with them. For IPv4 too: its addresses are shorter, and say what they are.
    """
    borrowed = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, 0, fileno=descriptor)
    try:
        yield borrowed
    finally:
        borrowed.detach()


def plain(peer: str) -> str:
    """gRPC's name of a peer, without what it does to an IPv6 address."""
    kind, _, rest = unquote(peer).partition(":")
    host, _, port = rest.rpartition(":")
    return f"{kind}:{host.strip('[]').partition('%')[0]}:{port}"


def _name(address: object) -> str:
    """The same, of getpeername's answer; empty: no such connection."""
    if not isinstance(address, tuple):
        return ""
    host, port = str(address[0]).partition("%")[0], address[1]
    if host.startswith(MAPPED):
        return f"ipv4:{host[len(MAPPED) :]}:{port}"
    return f"{'ipv6' if ':' in host else 'ipv4'}:{host}:{port}"
