"""Listing the sessions of one Redis server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis

from cellkeeper_service.domain.record import HEADER_BYTES, Header, SessionKey
from cellkeeper_service.domain.store import StoreError
from cellkeeper_service.store.damage import damaged
from cellkeeper_service.store.redis_keys import is_old, session_key
from cellkeeper_service.store.redis_link import Link
from cellkeeper_service.store.redis_script import script

SCAN_COUNT = 1000  # keys that one SCAN looks at, at least
SCAN_ROUNDS = 20  # SCANs for one page, at most: a page may come out short, or empty with a cursor


def page_at(link: Link, pattern: bytes, at: int, limit: int) -> tuple[list[tuple[SessionKey, Header]], int]:
    """About `limit` sessions from SCAN's cursor `at` on, and the cursor after them; 0: that was all."""
    names, after = scan_names(link, pattern, at, limit)
    replies = link.call(*headers_at(names)) if names else []
    return headers_of(names, replies), after


def scan_names(link: Link, pattern: bytes, at: int, limit: int) -> tuple[list[bytes], int]:
    """About `limit` distinct keys from SCAN's cursor `at` on, and the cursor after them; 0: that was all."""
    names: dict[bytes, None] = {}
    for _ in range(SCAN_ROUNDS):
        after, found = link.one("SCAN", at, "MATCH", pattern, "COUNT", SCAN_COUNT)
        at = int(after)
        names.update(dict.fromkeys(found))
        if not at or len(names) >= limit:
            break
    return list(names), at


def headers_at(names: Sequence[bytes]) -> list[tuple[bytes | str | int, ...]]:
    """The commands that read the headers of these keys. One more comes first, whose reply `headers_of` takes, too."""
    which = script("header")
    reads = [("LINDEX", name, 0) if is_old(name) else ("EVALSHA", which.sha, 1, name) for name in names]
    return [("SCRIPT", "LOAD", which.text), *reads]


def headers_of(names: Sequence[bytes], replies: Sequence[Any]) -> list[tuple[SessionKey, Header]]:
    """What the commands of `headers_at` answered; keys that expired or moved away meanwhile are left out."""
    sessions: dict[SessionKey, Header] = {}
    for name, header in zip(names, replies[1:], strict=True):
        if header is None or isinstance(header, redis.exceptions.AskError):  # (MOVED is one, too)
            continue
        if isinstance(header, Exception):
            raise StoreError(f"Redis cannot read {name!r}: {header}")
        if len(header) != HEADER_BYTES:
            raise damaged(session_key(name), f"its header has {len(header)} bytes")
        key = session_key(name)
        if key not in sessions or not is_old(name):  # a record of today wins over one of the layout before
            sessions[key] = Header.unpack(header)
    return list(sessions.items())
