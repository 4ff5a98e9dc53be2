"""How many bytes each connection has received, counted by the kernel. gRPC for Python reports whole messages only."""

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
"""tcpi_bytes_received in Linux's struct tcp_info, since 4.1."""
MAPPED = "::ffff:"  # prefix of an IPv4 address on an IPv6 socket


class Received:
    """Finds this process's connections by their peers. Finds none if the system reports none: see `is_known`."""

    def __init__(self) -> None:
        self._descriptors: dict[str, int] = {}  # by peer

    @property
    def is_known(self) -> bool:
        return TCP_INFO is not None and DESCRIPTORS.is_dir()

    def of(self, peers: Collection[str]) -> dict[str, int]:
        """Returns the bytes received, by peer, for open connections. peers: as gRPC names them."""
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

    def _take(self, descriptor: int, wanted: dict[str, str], found: dict[str, int]) -> None:
        """Reads the descriptor's count if its peer is wanted. A descriptor may be closed and reused at any time."""
        try:
            with _borrowed(descriptor) as connection:
                peer = wanted.get(_name(connection.getpeername()))
                if peer is not None:
                    info = connection.getsockopt(LEVEL, TCP_INFO or 0, INFO_BYTES)
                    (found[peer],) = BYTES_RECEIVED.unpack_from(info)
                    self._descriptors[peer] = descriptor
        except (OSError, StructError):  # not a connection, already closed, or a kernel that does not count
            return


@contextmanager
def _borrowed(descriptor: int) -> Iterator[socket.socket]:
    """Wraps another owner's socket without closing it. Raises OSError if the descriptor is not a socket.

    It must not be a duplicate: if the descriptor turned out to be a file's, closing the duplicate would release every
    lock that this process holds on that file (fcntl(2)), SQLite's included. AF_INET6 works for IPv4 too: its addresses
    are shorter, and carry their family.
    """
    borrowed = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, 0, fileno=descriptor)
    try:
        yield borrowed
    finally:
        borrowed.detach()


def plain(peer: str) -> str:
    """Returns gRPC's name of a peer, without its escapes and brackets around an IPv6 address."""
    kind, _, rest = unquote(peer).partition(":")
    host, _, port = rest.rpartition(":")
    return f"{kind}:{host.strip('[]').partition('%')[0]}:{port}"


def _name(address: object) -> str:
    """Returns the same form for an address from getpeername; empty if it is not an IP connection."""
    if not isinstance(address, tuple):
        return ""
    host, port = str(address[0]).partition("%")[0], address[1]
    if host.startswith(MAPPED):
        return f"ipv4:{host[len(MAPPED) :]}:{port}"
    return f"{'ipv6' if ':' in host else 'ipv4'}:{host}:{port}"
