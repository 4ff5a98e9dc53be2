"""One connection to Redis, which redis-py has made, and what can be done on it without waiting."""

from __future__ import annotations

import os
import socket
from typing import Any
from weakref import WeakKeyDictionary

import hiredis
import redis
from redis.connection import DefaultParser

from cellkeeper_service.store.redis.failures import ERROR_REPLIES
from cellkeeper_service.store.redis.layout import RUN_BYTES

READ_BYTES = 65536
RUN_ID_DIGITS = 40
NOT_ENOUGH = object()


class Peer:
    """What is known of the server at the other end of one socket.

    run: the run of the server, as elements of records have it (layout.py). Where the server does not tell,
    a name that only this socket has. is_known: the server was asked. has_written: a whole transaction was written over
    this socket, so the append-only file of this run does not go on with one that a crash cut (docs/adr/203).
    """

    __slots__ = ("has_written", "is_known", "run")

    def __init__(self) -> None:
        self.has_written = False
        self.is_known = False
        self.run = os.urandom(RUN_BYTES)

    def tells(self, run_id: str) -> None:
        """run_id: INFO's, 40 hexadecimal digits; another text where the server does not tell."""
        self.is_known = True
        if len(run_id) == RUN_ID_DIGITS:
            self.run = bytes.fromhex(run_id[: 2 * RUN_BYTES])


# By socket, as redis-py connects again without telling, and hands out the same connection as another one's.
_peers: WeakKeyDictionary[Any, Peer] = WeakKeyDictionary()


class Wire:
    """direct: it is a plain socket. With TLS, bytes and readiness are not the socket's, and only redis-py's own calls
    are of use."""

    __slots__ = ("_reader", "_socket", "connection", "direct", "peer")

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self._socket: Any = getattr(connection, "_sock", None)  # there is no public way to it
        self.peer = Peer() if self._socket is None else _peers.setdefault(self._socket, Peer())
        self.direct = type(self._socket) is socket.socket
        self._reader = hiredis.Reader(
            protocolError=redis.exceptions.InvalidResponse,
            replyError=DefaultParser.parse_error,
            notEnoughData=NOT_ENOUGH,
        )

    def fileno(self) -> int:
        """-1 where it was closed, or is not direct."""
        number: int = self._socket.fileno() if self.direct else -1
        return number

    @property
    def idle(self) -> bool:
        """It is open, and nothing has come that nobody asked for."""
        try:
            os.read(self.fileno(), 1)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    @property
    def clean(self) -> bool:
        """No reply is left of what was read."""
        return not self._reader.has_data()

    # Everything below is for a direct one.

    def write(self, data: bytes) -> int:
        """Sends what the socket takes at once; how many bytes. Raises OSError."""
        try:
            return os.write(self.fileno(), data)  # (not blocking, as redis-py gives every socket a timeout)
        except BlockingIOError:
            return 0

    def write_all(self, data: bytes | memoryview) -> None:
        """Waits, for as long as the connection's timeout. Raises OSError."""
        self._socket.sendall(data)

    def read(self, count: int) -> list[Any] | None:
        """Up to `count` more replies of those that are there, error replies as exceptions; None: nothing has come.
        Raises OSError and RedisError where the connection is of no more use."""
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
