"""One connection to Redis, made by redis-py, with operations that do not wait.

Its socket is the only part of redis-py that is used and not public. It may change with any release, so the extra
`server` limits the releases to TESTED, and `make check-redis-py` tests the oldest and the newest. Without that
attribute, every call takes redis-py's own way, on a thread.
"""

from __future__ import annotations

import os
import socket
from typing import Any
from weakref import WeakKeyDictionary

import hiredis
import redis
from redis.connection import DefaultParser

from .failures import ERROR_REPLIES
from .layout import RUN_BYTES

TESTED = ">=6.0,<9"
SOCKET = "_sock"
"""The attribute of redis-py's connections that contains their socket, or None."""

READ_BYTES = 65536
RUN_ID_DIGITS = 40
NOT_ENOUGH = object()


class Peer:
    """What is known about the server at the other end of one socket.

    run: the run of the server, as elements of records store it (layout.py); random bytes for this socket alone if the
    server does not tell. is_known: the server was asked. has_written: a complete transaction was written over this
    socket, so it has ended any that a crash cut short in the append-only file (docs/adr/203).
    """

    __slots__ = ("has_written", "is_known", "run")

    def __init__(self) -> None:
        self.has_written = False
        self.is_known = False
        self.run = os.urandom(RUN_BYTES)

    def tells(self, run_id: str) -> None:
        """Notes the server's answer. run_id: INFO's, 40 hexadecimal digits; any other text if it does not tell."""
        self.is_known = True
        if len(run_id) == RUN_ID_DIGITS:
            self.run = bytes.fromhex(run_id[: 2 * RUN_BYTES])


# By socket, because redis-py reconnects silently, so that the same connection object may have a new socket.
_peers: WeakKeyDictionary[Any, Peer] = WeakKeyDictionary()


class Wire:
    """One connection.

    direct: it is a plain socket. With TLS, the socket's bytes and readiness are not those of the stream, and only
    redis-py's own calls can be used.
    """

    __slots__ = ("_reader", "_socket", "connection", "direct", "peer")

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self._socket: Any = getattr(connection, SOCKET, None)
        self.peer = Peer() if self._socket is None else _peers.setdefault(self._socket, Peer())
        self.direct = type(self._socket) is socket.socket
        self._reader = hiredis.Reader(
            protocolError=redis.exceptions.InvalidResponse,
            replyError=DefaultParser.parse_error,
            notEnoughData=NOT_ENOUGH,
        )

    def fileno(self) -> int:
        """Returns the socket's descriptor; -1 if it is closed or not direct."""
        number: int = self._socket.fileno() if self.direct else -1
        return number

    @property
    def idle(self) -> bool:
        """Whether it is open and no unexpected bytes have arrived."""
        try:
            os.read(self.fileno(), 1)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    @property
    def clean(self) -> bool:
        """Whether no bytes that were read are left over."""
        return not self._reader.has_data()

    # Everything below requires a direct connection.

    def write(self, data: bytes) -> int:
        """Sends what the socket accepts without waiting, and returns how many bytes. Raises OSError."""
        try:
            return os.write(self.fileno(), data)  # non-blocking, because redis-py sets a timeout on every socket
        except BlockingIOError:
            return 0

    def write_all(self, data: bytes | memoryview) -> None:
        """Sends everything, and waits for up to the connection's timeout. Raises OSError."""
        self._socket.sendall(data)

    def read(self, count: int) -> list[Any] | None:
        """Returns up to `count` replies that have arrived, error replies as exceptions; None: no bytes have arrived.

        Raises OSError or RedisError if the connection is no longer usable.
        """
        try:
            data = os.read(self.fileno(), READ_BYTES)
        except BlockingIOError:
            return None
        if not data:
            raise redis.exceptions.ConnectionError("Connection closed by server.")
        self._reader.feed(data)
        replies: list[Any] = []
        while len(replies) < count:
            reply = self._reader.gets()
            if reply is NOT_ENOUGH:
                break
            if isinstance(reply, redis.exceptions.ConnectionError) and not isinstance(reply, ERROR_REPLIES):
                raise reply
            replies.append(reply)
        return replies
