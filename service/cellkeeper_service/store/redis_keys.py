"""What Cellkeeper keeps in Redis: every key, its type, its TTL, and the scripts that touch it.

    key        ck1:{BUCKET}:TENANT:MODEL:SESSION
    type       list
    elements   [0] the packed header (HEADER_BYTES; its first 32 bytes are the position)
               [1] the checkpoint
               [2..] the input log, one element a chunk, oldest first
    TTL        the header's ttl_ms, counted from the last commit or touching load; written anew only once less
               than 90 % of it is left; no TTL where ttl_ms is 0

    ck1        the layout's version; the bucket count is part of it
    BUCKET     CRC-32 of "TENANT:MODEL:SESSION" modulo BUCKETS, three digits. It is the hash tag: all of a
               bucket is in one slot of a Redis Cluster, so one script call can carry many sessions.
    TENANT     percent-escaped, so it holds no colon and nothing that SCAN's MATCH interprets; may be empty
    MODEL      the same
    SESSION    as it is, to the end of the key

A single key holds a record, so it is there whole or not at all, and expires at one instant. Why a list:
docs/adr/201-redis-list-per-session.md.

Scripts, each called once for a whole tick (on a cluster once for each slot in it); one key for each item, and nothing
else is touched:

    commit.lua   compare the header in [0], then create, append to or replace the record
    load.lua     read the record, refresh its TTL where asked
    delete.lua   compare the generation in [0], then delete
"""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import quote, unquote
from zlib import crc32

from cellkeeper_service.domain.record import SessionKey

VERSION = "ck1"
BUCKETS = 128
TTL_OFFSET_BYTES = 64  # where the packed header has ttl_ms, 8 bytes little-endian: load.lua reads it

_KEY = re.compile(rb"ck1:\{[0-9]{3}\}:([^:]*):([^:]*):(.*)", re.DOTALL)
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


def session_key(name: bytes) -> SessionKey:
    """The inverse of `redis_key`. ValueError for anything else."""
    match = _KEY.fullmatch(name)
    if match is None:
        raise ValueError(f"key: got {name!r}, expected one of layout {VERSION}")
    tenant, model, session = match.groups()
    return SessionKey(unquote(tenant.decode()), unquote(model.decode()), session.decode())


def match_pattern(tenant: str, model: str, prefix: str) -> bytes:
    """SCAN's MATCH for the sessions of one model whose id starts with `prefix`, in every bucket."""
    escaped = _GLOB.sub(rb"\\\g<0>", prefix.encode())
    return VERSION.encode() + b":{???}:" + _scope(tenant, model) + escaped + b"*"
