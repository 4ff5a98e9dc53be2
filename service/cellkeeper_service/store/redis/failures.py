"""Classifies Redis failures: not done, or unknown."""

from __future__ import annotations

from collections.abc import Mapping

import redis

from cellkeeper_service.domain.record import SessionKey
from cellkeeper_service.domain.store import StoreError

from ..damage import damaged

# Error replies that Redis sends instead of running a command or script, never in the middle of one.
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

_WHAT_TO_DO = {
    "used memory > 'maxmemory'": "raise its maxmemory, or delete sessions",
    "MISCONF": "make room on its disk, see redis-cli info persistence",
    "read only replica": "it has become a replica; name the primary in the URL, or use redis+sentinel://",
    "NOREPLICAS": "see its min-replicas-to-write, and redis-cli info replication",
    "busy running a script": "another program's script runs in it; redis-cli script kill ends it",
    "Authentication required": "name its password in the store's URL",
    "client already authenticated": "name its password in the store's URL",
    "invalid username-password pair": "name its present password in the store's URL, and restart the server",
    "no permissions": "give its user this right, see docs/security.md",
    "user executing the script": "give its user the rights in docs/security.md; ACL LOG shows which it lacks",
    "max number of clients": "raise its maxclients",
    "DB index is out of range": "name one of its databases in the store's URL, or raise its setting `databases`",
    "without any password configured": "remove the password from the store's URL",
    "cluster support disabled": "it is in no cluster; name it by redis://",
    "command 'AUTH'": "allow it there, or remove the user and the password from the store's URL",
    "command 'SENTINEL'": "it is no sentinel, whose port is usually 26379; or name it by redis://",
    "Connection refused": "start Redis, or correct the store's URL",
    "Name or service not known": "start Redis, or correct the host in the store's URL",
    "name resolution": "start Redis, or correct the host in the store's URL",
    "Timeout connecting": "correct the store's URL: its host, its port, and rediss:// only if Redis serves TLS",
    "as reply type byte": "what answers there is not Redis; correct the store's URL",
    "certificate has expired": "renew Redis's certificate, or set this machine's clock",
    "certificate is not yet valid": "set this machine's clock, or wait until Redis's certificate is valid",
    "CERTIFICATE_VERIFY_FAILED": "name Redis's authority as ssl_ca_certs, and the host as its certificate does",
    "NO_CERTIFICATE_OR_CRL_FOUND": "name a PEM file as ssl_ca_certs",
    "connecting to /": "start Redis, or correct the path of its socket in the store's URL",
    "Error 2 connecting": "name files that are there as ssl_ca_certs, ssl_certfile and ssl_keyfile",
}
"""What to do, by a part of the error reply, or of what redis-py says: it drops the codes of most replies."""

CANNOT_NOW = (
    redis.exceptions.BusyLoadingError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.MasterDownError,
    redis.exceptions.ReadOnlyError,
)
"""Error replies of a server that cannot serve at present; another may have taken over."""

# (redis-py treats the last two as connection errors, but the server did reply)
ERROR_REPLIES = (
    redis.exceptions.ResponseError,
    redis.exceptions.BusyLoadingError,
    redis.exceptions.AuthenticationError,
)


class Refused(StoreError):
    """Nothing was done: the command was not sent, or the server refused it before it began."""


class Unreached(Refused):
    """Nothing was sent, or the server serves nothing at present."""


class MayEvict(Unreached):
    """The server may drop records when its memory is full, so nothing is kept there."""


class Unknown(StoreError):
    """The command was done, will be done, or never will be: there is no way to tell."""


def check_eviction(info: Mapping[str, str]) -> None:
    """Raises MayEvict if the server with this INFO may drop records when its memory is full."""
    policy = info.get("maxmemory_policy")
    if policy != "noeviction":
        raise MayEvict(
            f"Redis has maxmemory-policy {policy!r}, which may drop sessions, expected 'noeviction'; run "
            "CONFIG SET maxmemory-policy noeviction, and put it into redis.conf"
        )


def refusal(error: Exception) -> Refused:
    """Returns the failure for an error reply that means that nothing was done."""
    serves_nothing = isinstance(error, CANNOT_NOW) and not isinstance(error, redis.exceptions.ReadOnlyError)
    return (Unreached if serves_nothing else Refused)(f"Redis refused: {text_of(error)}")


def not_run(error: Exception) -> bool:
    """Returns True if this error reply means that nothing of the command was done."""
    return isinstance(error, _NOT_RUN) or str(error).startswith(_NOT_RUN_PREFIXES)


def not_read(key: SessionKey, text: bytes) -> StoreError:
    """Returns the error for a failed read of a record's key. text: the error reply's."""
    why = text.decode(errors="replace")
    if why.startswith("WRONGTYPE"):
        return damaged(key, f"its key in Redis is not a list ({why})")
    return StoreError(f"Redis cannot read a record: {with_advice(why)}")  # the log shows this text, and no ids


def text_of(error: Exception) -> str:
    return f"{type(error).__name__}: {with_advice(str(error))}"


def with_advice(reply: str) -> str:
    """Returns the text of an error, and what to do about it if that is known.

    To a command that it does not know, Redis quotes the arguments: of AUTH that is the password.
    """
    reply = reply.partition(", with args beginning with")[0]
    advice = next((advice for part, advice in _WHAT_TO_DO.items() if part in reply), "")
    return f"{reply.rstrip('. ')}; {advice}" if advice else reply
