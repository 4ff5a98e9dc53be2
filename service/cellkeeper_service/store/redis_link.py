"""Talks to one Redis server, and knows what a failure means: not sent, refused, or no way to tell.

redis-py repeats commands on its own by default; a compare-and-set that is repeated conflicts with itself. So
the retries are off here, every connection is used directly, and one that failed is closed, never used again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from cellkeeper_service.domain.store import StoreError

MAX_CONNECTIONS = 1024

# Error replies that Redis gives instead of running a command or script, never in the middle of one.
_NOT_RUN = (
    redis.exceptions.AskError,
    redis.exceptions.AuthenticationError,
    redis.exceptions.BusyLoadingError,
    redis.exceptions.ClusterCrossSlotError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.MasterDownError,
    redis.exceptions.MovedError,
    redis.exceptions.NoPermissionError,
    redis.exceptions.NoScriptError,
    redis.exceptions.OutOfMemoryError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.TryAgainError,
)
# (the two are connection errors to redis-py, but the server answered)
_ERROR_REPLIES = (
    redis.exceptions.ResponseError,
    redis.exceptions.BusyLoadingError,
    redis.exceptions.AuthenticationError,
)
_NOT_RUN_PREFIXES = ("BUSY ", "MISCONF ", "NOREPLICAS ")


class Refused(StoreError):
    """Nothing of it was done: it was not sent, or the server said no before it began."""


class Unknown(StoreError):
    """It may have been done, may be done yet, or never will be."""


@dataclass(frozen=True, slots=True)
class Script:
    """A server-side script and the SHA-1 it is called by."""

    text: bytes
    sha: str


@cache
def script(name: str) -> Script:
    """The script `name`.lua of this package."""
    text = files("cellkeeper_service.store").joinpath(f"{name}.lua").read_bytes()
    return Script(text, sha1(text).hexdigest())


class Link:
    """Connections to one server; safe to use from several threads.

    url: redis://, rediss:// or unix://, as redis-py takes them.
    timeout_ms: for connecting, and for every wait for bytes.
    """

    def __init__(self, url: str, timeout_ms: int) -> None:
        try:
            self._pool = redis.ConnectionPool.from_url(
                url,
                max_connections=MAX_CONNECTIONS,
                socket_timeout=timeout_ms / 1000.0,
                socket_connect_timeout=timeout_ms / 1000.0,
                retry=Retry(NoBackoff(), 0),
                retry_on_timeout=False,
                health_check_interval=0,
                protocol=2,
            )
        except ValueError as error:
            raise StoreError(
                f"store: got a Redis URL that cannot be read: {error}; expected redis://HOST:PORT/DB"
            ) from error

    def call(self, *commands: Sequence[bytes | str | int]) -> list[Any]:
        """Sends all commands at once; one reply for each, error replies as exceptions, not raised.

        Raises Refused where nothing was sent, Unknown where something was and a reply did not come.
        """
        try:
            connection: Any = self._pool.get_connection()
        except (redis.RedisError, OSError) as error:
            raise Refused(f"Redis cannot be reached: {_text(error)}") from error
        try:
            connection.send_packed_command(connection.pack_commands(commands), check_health=False)
            replies = [_reply(connection) for _ in commands]
        except (redis.RedisError, OSError) as error:
            connection.disconnect()
            raise Unknown(f"Redis gave no answer: {_text(error)}") from error
        except BaseException:
            connection.disconnect()  # a reply may still be on its way: it must not meet the next command
            raise
        finally:
            self._pool.release(connection)
        return replies

    def one(self, *command: bytes | str | int) -> Any:
        """One command and its reply; raises Refused for an error reply, as this is for reading."""
        (reply,) = self.call(command)
        if isinstance(reply, Exception):
            raise Refused(f"Redis refused {command[0]!s}: {_text(reply)}") from reply
        return reply

    def run(
        self,
        which: Script,
        keys: Sequence[bytes],
        arguments: Sequence[bytes | str | int],
        *then: Sequence[bytes | str | int],
    ) -> list[Any]:
        """Runs a script over all keys, and the commands `then` behind it: the replies of both.

        Raises Refused where the script was not run, Unknown where it may have been.
        """
        command = ("EVALSHA", which.sha, len(keys), *keys, *arguments)
        replies = self.call(command, *then)
        if isinstance(replies[0], redis.exceptions.NoScriptError):  # so it was not run
            replies = self.call(("SCRIPT", "LOAD", which.text), command, *then)[1:]
        error = replies[0]
        if isinstance(error, _NOT_RUN) or str(error).startswith(_NOT_RUN_PREFIXES):
            raise Refused(f"Redis refused: {_text(error)}")
        if isinstance(error, Exception):
            raise Unknown(f"the script failed: {_text(error)}")
        return replies

    def close(self) -> None:
        self._pool.disconnect()


def _reply(connection: Any) -> Any:
    """The next reply; an error reply as an exception."""
    try:
        return connection.read_response(disconnect_on_error=False)
    except _ERROR_REPLIES as error:
        return error


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
