"""Checks, once at start-up, that a server can do what the store needs, and that the user has the right to it.

Otherwise the first step, the first long log or the first slot that moves finds out. Scripts can ask about the rights of
their own user, which takes no rights but those that the store needs in any case; ACL DRYRUN is for administrators.
"""

from __future__ import annotations

from collections.abc import Sequence

import redis

from cellkeeper_service.domain.store import StoreError

from .keys import SUCCESSOR, VERSION
from .link import Link
from .script import script

_KEY = SUCCESSOR.decode()
_KEYS = f"evalsha {'0' * 40} 1 {_KEY}"
"""Needs the right to the keys, and to EVALSHA, which has certainly run when the answer is there."""

COMMANDS = (
    _KEYS,
    "info",
    "script load text",
    f"scan 0 match {VERSION}:*",
    f"lindex {_KEY} -1",
    f"llen {_KEY}",
    f"lrange {_KEY} 0 -1",
    f"ltrim {_KEY} 0 -1",
    f"rpush {_KEY} element",
    f"persist {_KEY}",
    f"pttl {_KEY}",
    f"pexpire {_KEY} 1",
    f"unlink {_KEY}",
)
OF_CLUSTERS = ("asking", "cluster slots", "cluster nodes", "cluster info")
BEHIND_SENTINELS = ("role",)
OF_WAITING = ("wait 1 1",)


class Denied(StoreError):
    """The server does not let the user do what the store needs."""


def check_rights(link: Link, more: Sequence[str]) -> None:
    """Raises Denied, with what to change, if the user may not run one of COMMANDS or `more`, or if the server lacks a
    command that scripts run."""
    which = script("rights")
    commands = [*COMMANDS, *more]
    loaded, told = link.call(("SCRIPT", "LOAD", which.text), ("EVALSHA", which.sha, 0, *commands))
    scripts = [rule for reply, rule in ((loaded, "+script|load"), (told, "+evalsha")) if _is_denied(reply)]
    if scripts:
        raise Denied(_lacking(scripts))
    if isinstance(loaded, Exception) and "unknown command" in str(loaded):
        raise Denied(_unknown(["SCRIPT"]))
    if isinstance(told, Exception):  # the server cannot say; what it does not permit, it refuses when it is needed
        return
    found, unknown = ([command.decode() for command in part] for part in told)
    if missing := [command.split()[0].upper() for command in unknown if _KEY in command]:
        raise Denied(_unknown(missing))
    if _KEYS in found:  # then it has no right to any command with such a key, whatever the command
        found = [command for command in found if _KEY not in command]
        raise Denied(_lacking([f"~{VERSION}:*", *map(_rule, found)]))
    if found:
        raise Denied(_lacking([_rule(command) for command in found]))


def _is_denied(reply: object) -> bool:
    return isinstance(reply, redis.exceptions.NoPermissionError)


def _rule(command: str) -> str:
    """Returns the rule that gives the right to a command."""
    name, *rest = command.split()
    return f"+{name}|{rest[0]}" if name in ("script", "cluster") else f"+{name}"


def _lacking(rules: Sequence[str]) -> str:
    return (
        f"Redis denies the user of the store's URL what the store needs; give this user {' '.join(rules)}, by ACL "
        "SETUSER and where its rules are kept (redis.conf or the ACL file), see docs/security.md"
    )


def _unknown(names: Sequence[str]) -> str:
    return (
        f"Redis does not know {', '.join(names)}, which the store needs; remove rename-command from redis.conf, or "
        "use a Redis that has all commands of version 7.0"
    )
