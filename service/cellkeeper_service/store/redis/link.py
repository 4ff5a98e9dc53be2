"""Talks to one Redis server, and classifies failures: not sent, refused, or unknown.

By default redis-py retries commands, and a retried compare-and-set conflicts with itself. So retries are off here,
connections are used directly, and one that failed is closed, never reused.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import hiredis
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from cellkeeper_service.domain.store import StoreError

from .failures import ERROR_REPLIES, MayEvict, Refused, Unknown, Unreached, check_eviction, text_of
from .runs import Runs
from .wire import Wire

MAX_CONNECTIONS = 1024


class Sent:
    """`count` commands that were sent to one server. The caller must call `replies` or `abandon`."""

    def __init__(self, link: Link, wire: Wire, count: int) -> None:
        self._link = link
        self._wire: Wire | None = wire
        self._connection = wire.connection
        self._count = count
        self._deadline = monotonic() + link.timeout_s

    def replies(self) -> list[Any]:
        """Returns one reply for each command: an error reply as an exception, Unknown for one that did not come."""
        connection = self._connection
        replies: list[Any] = []
        try:
            if not connection.can_read(timeout=max(0.0, self._deadline - monotonic())):
                raise redis.exceptions.TimeoutError("timeout")
            while len(replies) < self._count:
                replies.append(_reply(connection))
        except (redis.RedisError, OSError) as error:
            connection.disconnect()
            unknown = Unknown(f"Redis did not answer: {text_of(error)}")
            replies += [unknown] * (self._count - len(replies))
        finally:
            self.abandon(dirty=len(replies) < self._count)
        return replies

    def abandon(self, *, dirty: bool = True) -> None:
        """Hands the connection back. dirty: close it, because a reply still to come would answer the next command."""
        wire, self._wire = self._wire, None
        if wire is not None:
            self._link.put_back(wire, dirty=dirty)


class Link:
    """Connections to one server; safe to use from several threads.

    url: redis://, rediss:// or unix://, as redis-py accepts them.
    timeout_ms: to connect, and for each wait for bytes.
    runs: is told which run of the server each new connection reaches.
    """

    def __init__(self, url: str, timeout_ms: int, runs: Runs | None = None) -> None:
        self._runs = runs
        self._address = urlsplit(url).netloc.rpartition("@")[2] or urlsplit(url).path
        self.timeout_s = timeout_ms / 1000.0
        try:
            self._pool = redis.ConnectionPool.from_url(
                url,
                max_connections=MAX_CONNECTIONS,
                socket_timeout=self.timeout_s,
                socket_connect_timeout=self.timeout_s,
                retry=Retry(NoBackoff(), 0),
                retry_on_timeout=False,
                health_check_interval=0,
                protocol=2,
            )
        except ValueError as error:
            raise StoreError(
                f"store: got a Redis URL that cannot be read: {error}; expected redis://HOST:PORT/DB"
            ) from error
        self._idle: list[Wire] = []  # redis-py sees these as in use: its pool's checks take longer than a send

    def take_idle(self) -> Wire | None:
        """Returns an open, idle connection without TLS, to be returned with `put_back`, or None. Never waits."""
        while self._idle:
            try:
                wire = self._idle.pop()
            except IndexError:  # another thread took the last one
                break
            if wire.idle:
                return wire
            self.put_back(wire, dirty=True)  # the server has closed it
        return None

    def put_back(self, wire: Wire, *, dirty: bool) -> None:
        """Returns a connection to the pool. dirty: close it; redis-py reconnects when it is next needed."""
        if dirty:
            wire.connection.disconnect()
        if dirty or not wire.direct:
            self._pool.release(wire.connection)
        else:
            self._idle.append(wire)

    def take(self) -> Wire:
        """Returns a connection for `send` or `put_back`, a new one if none is idle. Raises Unreached, MayEvict."""
        wire = self.take_idle()
        if wire is not None:
            return wire
        try:
            wire = Wire(self._pool.get_connection())
            self._meet(wire)
        except (redis.RedisError, OSError, MayEvict) as error:
            if wire is not None:
                self.put_back(wire, dirty=True)
            if isinstance(error, MayEvict):
                raise
            why = text_of(error)
            if "reset by peer" in why or "closed by server" in why:
                why += "; if it serves TLS, its URL begins with rediss"
            raise Unreached(f"Redis cannot be reached: {why}") from error
        return wire

    def _meet(self, wire: Wire) -> None:
        """Asks the server of a new connection for its run id, and whether it may evict: it may be another server than
        at the start, or have another configuration since it restarted."""
        if self._runs is not None and not wire.peer.is_known:
            wire.connection.send_packed_command([packed("INFO")], check_health=False)
            info = _reply(wire.connection)
            if isinstance(info, Exception):
                raise info
            fields = info_fields(info)
            check_eviction(fields)
            run_id = fields.get("run_id", "")
            wire.peer.tells(run_id)
            self._runs.saw(self._address, run_id)

    def send(self, wire: Wire, *commands: bytes) -> Sent:
        """Sends all commands, already packed, in one write, and does not wait for the replies.

        Raises Unknown if sending failed midway.
        """
        sent = Sent(self, wire, len(commands))
        try:
            wire.connection.send_packed_command([b"".join(commands)], check_health=False)
        except (redis.RedisError, OSError) as error:
            sent.abandon()
            raise Unknown(f"Redis did not answer: {text_of(error)}") from error
        except BaseException:
            sent.abandon()
            raise
        return sent

    def call(self, *commands: Sequence[bytes | str | int]) -> list[Any]:
        """Sends all commands at once and returns one reply for each; error replies are returned as exceptions.

        Raises Unreached if nothing was sent, Unknown if something was sent and a reply did not come.
        """
        replies = self.send(self.take(), *[packed(*command) for command in commands]).replies()
        if isinstance(replies[-1], Unknown):
            raise replies[-1]
        return replies

    def one(self, *command: bytes | str | int) -> Any:
        """Sends one read-only command and returns its reply. Raises Refused for an error reply, otherwise as `call`."""
        (reply,) = self.call(command)
        if isinstance(reply, Exception):
            raise Refused(f"Redis refused {command[0]!s}: {text_of(reply)}") from reply
        return reply

    def close(self) -> None:
        self._pool.disconnect()


def packed(*words: bytes | str | int) -> bytes:
    """Returns a command in wire format."""
    command: bytes = hiredis.pack_command(words)  # type: ignore[arg-type]  # its stubs allow only one word
    return command


def info_fields(text: bytes) -> dict[str, str]:
    """Parses the name:value lines of INFO or CLUSTER INFO."""
    fields = (line.partition(":") for line in text.decode(errors="replace").splitlines())
    return {name: value for name, colon, value in fields if colon}


def bulk(word: bytes) -> bytes:
    """Returns one argument of a command in wire format."""
    return b"$%d\r\n%b\r\n" % (len(word), word)


def _reply(connection: Any) -> Any:
    """Reads the next reply; an error reply is returned as an exception."""
    try:
        return connection.read_response(disconnect_on_error=False)
    except ERROR_REPLIES as error:
        return error
