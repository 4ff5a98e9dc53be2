"""What a failure of Redis means: not done, or no way to tell."""

from __future__ import annotations

import redis

from cellkeeper_service.domain.record import SessionKey
from cellkeeper_service.domain.store import StoreError
from cellkeeper_service.store.damage import damaged

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
_NOT_RUN_PREFIXES = ("BUSY ", "MISCONF ", "NOREPLICAS ")

# (the last two are connection errors to redis-py, but the server answered)
ERROR_REPLIES = (
    redis.exceptions.ResponseError,
    redis.exceptions.BusyLoadingError,
    redis.exceptions.AuthenticationError,
)


class Refused(StoreError):
    """Nothing of it was done: it was not sent, or the server said no before it began."""


class Unknown(StoreError):
    """It may have been done, may be done yet, or never will be."""


def not_run(error: Exception) -> bool:
    """Whether this error reply says that nothing of the command was done."""
    return isinstance(error, _NOT_RUN) or str(error).startswith(_NOT_RUN_PREFIXES)


def not_read(key: SessionKey, text: bytes) -> StoreError:
    """Why a command that reads a record's key failed, from the error reply's text."""
    why = text.decode(errors="replace")
    if why.startswith("WRONGTYPE"):
        return damaged(key, f"its key in Redis is no list ({why})")
    return StoreError(f"Redis cannot read session {key.session!r}: {why}")


def text_of(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
