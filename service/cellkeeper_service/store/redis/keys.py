"""What Cellkeeper keeps in Redis: every key, its type, its TTL, and the scripts that touch it.

    key        ck2:{BUCKET}:TENANT:MODEL:SESSION
    type       list; its elements: layout.py
    TTL        the header's ttl_ms, counted from the last commit or touching load; written anew only once less
               than 90 % of it is left; no TTL where ttl_ms is 0

    ck2        the layout's version; the bucket count is part of it
    BUCKET     CRC-32 of "TENANT:MODEL:SESSION" modulo BUCKETS, three digits. It is the hash tag: all of a
               bucket is in one slot of a Redis Cluster, so one script call can carry many sessions.
    TENANT     percent-escaped, so it holds no colon and nothing that SCAN's MATCH interprets; may be empty
    MODEL      the same
    SESSION    as it is, to the end of the key

A single key holds a record, so it is there whole or not at all, and expires at one instant. Why a list:
docs/adr/201-redis-list-per-session.md.

ck1 is the layout before (layout1.py). Its records are read where no ck2 record stands, and written as ck2 before
their session's next commit (upgrade.py).

    key        ck2:{000}
    type       list, absent today. A release that writes another layout pushes the name of that layout ("ck3", say)
               here before it writes its first record; a server of this release that starts then refuses to, as it
               would take every session in the other layout for one that was never opened. The key has no session
               in it, so listings pass over it. docs/adr/206.

Scripts, each called once for a whole tick (on a cluster once for each slot in it); one key for each item, and nothing
else is touched:

    write.lua    compare the header, then create, append to or replace the record; and what is a call of its own:
                 delete it, trim it, set its TTL
    load.lua     read the record, refresh its TTL where asked
    header.lua   read the header, for listings
"""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import quote, unquote
from zlib import crc32

from cellkeeper_service.domain.record import SessionKey

VERSION, OLD_VERSION = "ck2", "ck1"
BUCKETS = 128
SUCCESSOR = b"ck2:{000}"

_KEY = re.compile(rb"ck[12]:\{[0-9]{3}\}:([^:]*):([^:]*):(.*)", re.DOTALL)
_GLOB = re.compile(rb"[\\*?\[\]^]")


def bucket_of(name: bytes) -> int:
    """The bucket of a key that `redis_key` made."""
    return int(name[5:8])


@lru_cache(maxsize=1024)
def _scope(tenant: str, model: str) -> bytes:
    return f"{quote(tenant, safe='')}:{quote(model, safe='')}:".encode()


@lru_cache(maxsize=1 << 16)
def redis_key(key: SessionKey) -> bytes:
    """The Redis key of a session; different sessions have different keys."""
    name = _scope(key.tenant, key.model) + key.session.encode()
    return b"%b:{%03d}:%b" % (VERSION.encode(), crc32(name) % BUCKETS, name)


def old_key(name: bytes) -> bytes:
    """The key of the same session's record in the layout before."""
    return OLD_VERSION.encode() + name[3:]


def is_old(name: bytes) -> bool:
    """Whether this is the key of a record in the layout before."""
    return name.startswith(b"ck1:")


def session_key(name: bytes) -> SessionKey:
    """The session of a key of either layout; for `redis_key` its inverse. ValueError for anything else."""
    match = _KEY.fullmatch(name)
    if match is None:
        raise ValueError(f"key: got {name!r}, expected one of layout {VERSION}")
    tenant, model, session = match.groups()
    return SessionKey(unquote(tenant.decode()), unquote(model.decode()), session.decode())


def match_pattern(tenant: str, model: str, prefix: str) -> bytes:
    """SCAN's MATCH for the sessions of one model whose id starts with `prefix`: every bucket, either layout."""
    escaped = _GLOB.sub(rb"\\\g<0>", prefix.encode())
    return b"ck[12]:{???}:" + _scope(tenant, model) + escaped + b"*"
