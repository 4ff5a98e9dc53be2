"""What Cellkeeper keeps in Redis: every key, its type, its TTL, and the scripts that use it.

    key        ck2:{BUCKET}:TENANT:MODEL:SESSION
    type       list; layout.py describes its elements
    TTL        the header's ttl_ms, counted from the last commit or touching load; refreshed only when less
               than 90 % of it is left; no TTL if ttl_ms is 0

    ck2        the layout's version; the bucket count is part of it
    BUCKET     CRC-32 of "TENANT:MODEL:SESSION" modulo BUCKETS, three digits. It is the hash tag: a whole
               bucket is in one slot of a Redis Cluster, so one script call can carry many sessions.
    TENANT     percent-escaped, so it contains no colon and nothing that SCAN's MATCH interprets; may be empty
    MODEL      the same
    SESSION    verbatim, up to the end of the key

One key holds the whole record, so the record exists whole or not at all, and expires at one instant.
docs/adr/201-redis-list-per-session.md says why it is a list.

    key        ck2:{000}
    type       list, which does not exist today. A release that writes another layout pushes the name of that layout
               ("ck3", say) here before it writes its first record. A server of this release that starts after that
               refuses to, since it would see every session in the other layout as one that was never opened. The key
               names no session, so listings skip it. docs/adr/206.

    key        ck2:{BUCKET}:replicated
    type       list, for a moment: with --wait-replicas, a load pushes to it and unlinks it, so that WAIT has something
               to wait for. The key names no session, either.

Each script is called once for a whole tick (on a cluster, once for each slot in it). It takes one key per item and
touches nothing else:

    write.lua    compares the header, then creates, appends to or replaces the record; in calls of their own:
                 deletes it, trims it, sets its TTL
    load.lua     reads the record, and refreshes its TTL if asked
    header.lua   reads the header, for listings

rights.lua, which touches no key, tells what the user may not do, once when a server starts.
"""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import quote, unquote
from zlib import crc32

from cellkeeper_service.domain.record import SessionKey

VERSION = "ck2"
BUCKETS = 128
SUCCESSOR = b"ck2:{000}"

_KEY = re.compile(rb"ck2:\{[0-9]{3}\}:([^:]*):([^:]*):(.*)", re.DOTALL)
_GLOB = re.compile(rb"[\\*?\[\]^]")


def bucket_of(name: bytes) -> int:
    """Returns the bucket of a key made by `redis_key`."""
    return int(name[5:8])


@lru_cache(maxsize=1024)
def _scope(tenant: str, model: str) -> bytes:
    return f"{quote(tenant, safe='')}:{quote(model, safe='')}:".encode()


@lru_cache(maxsize=1 << 16)
def redis_key(key: SessionKey) -> bytes:
    """Returns the Redis key of a session; different sessions have different keys."""
    name = _scope(key.tenant, key.model) + key.session.encode()
    return b"%b:{%03d}:%b" % (VERSION.encode(), crc32(name) % BUCKETS, name)


def mark_key(name: bytes) -> bytes:
    """Returns the key that a load writes to, in the slot of a session's key."""
    return b"%b%b:replicated" % (VERSION.encode(), name[3:9])


def session_key(name: bytes) -> SessionKey:
    """Returns the session of a key; the inverse of `redis_key`. Raises ValueError for other keys."""
    match = _KEY.fullmatch(name)
    if match is None:
        raise ValueError(f"key: got {name!r}, expected one of layout {VERSION}")
    tenant, model, session = match.groups()
    return SessionKey(unquote(tenant.decode()), unquote(model.decode()), session.decode())


def match_pattern(tenant: str, model: str, prefix: str) -> bytes:
    """Returns SCAN's MATCH for the sessions of one model whose id starts with `prefix`, in all buckets."""
    escaped = _GLOB.sub(rb"\\\g<0>", prefix.encode())
    return b"ck2:{???}:" + _scope(tenant, model) + escaped + b"*"
