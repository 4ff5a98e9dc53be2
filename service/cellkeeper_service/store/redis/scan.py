"""Lists the sessions of one Redis server."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import redis

from cellkeeper_service.domain.record import Header, SessionKey
from cellkeeper_service.domain.store import DamagedRecord, Listed, StoreError

from ..damage import read_header
from .failures import not_read
from .keys import session_key
from .link import Link
from .script import script

_logger = logging.getLogger(__name__)
_FAILED = b"failed: "  # begins header.lua's answer if it could not read the key

SCAN_COUNT = 1000  # keys that one SCAN examines, at least
SCAN_ROUNDS = 20  # SCANs per page, at most, so a page may be short, or empty with a cursor


def is_scan_cursor(text: str) -> bool:
    """Returns True if SCAN may have returned this cursor; it refuses a larger number."""
    return text.isascii() and text.isdigit() and len(text) <= 20 and int(text) < 2**64


def page_at(link: Link, pattern: bytes, at: int, limit: int) -> tuple[list[Listed], int]:
    """Returns about `limit` sessions from SCAN's cursor `at` on, and the next cursor; 0: there are no more."""
    names, after = scan_names(link, pattern, at, limit)
    replies = link.call(*headers_at(names)) if names else []
    return headers_of(names, replies), after


def scan_names(link: Link, pattern: bytes, at: int, limit: int) -> tuple[list[bytes], int]:
    """Returns about `limit` distinct keys from SCAN's cursor `at` on, and the next cursor; 0: there are no more."""
    names: dict[bytes, None] = {}
    for _ in range(SCAN_ROUNDS):
        after, found = link.one("SCAN", at, "MATCH", pattern, "COUNT", SCAN_COUNT)
        at = int(after)
        names.update(dict.fromkeys(found))
        if not at or len(names) >= limit:
            break
    return list(names), at


def headers_at(names: Sequence[bytes]) -> list[tuple[bytes | str | int, ...]]:
    """Returns the commands that read the headers of these keys, after one that loads the script. `headers_of` takes all
    their replies."""
    which = script("header")
    return [("SCRIPT", "LOAD", which.text), *[("EVALSHA", which.sha, 1, name) for name in names]]


def headers_of(names: Sequence[bytes], replies: Sequence[Any]) -> list[Listed]:
    """Returns what the commands of `headers_at` read, without keys that have expired or moved in the meantime, or that
    belong to no session."""
    sessions: list[Listed] = []
    for name, reply in zip(names, replies[1:], strict=True):
        if reply is None or isinstance(reply, redis.exceptions.AskError):  # (MovedError is a subclass)
            continue
        try:
            key = session_key(name)
        except ValueError as error:
            _logger.warning("Redis has a key that belongs to no session: %s", error)
            continue
        sessions.append((key, _header(key, reply)))
    return sessions


def _header(key: SessionKey, reply: Any) -> Header | DamagedRecord:
    """Returns the header in a reply, or what is wrong with it. Raises StoreError if the read failed."""
    if isinstance(reply, redis.exceptions.ResponseError) or (isinstance(reply, bytes) and reply.startswith(_FAILED)):
        reply = str(reply).encode() if isinstance(reply, Exception) else reply[len(_FAILED) :]
        failed = not_read(key, reply)
        if not isinstance(failed, DamagedRecord):
            raise failed
        return failed
    if isinstance(reply, Exception):
        raise StoreError(f"Redis cannot read a record: {reply}")
    return read_header(key, reply)
