"""A commit as commit.lua takes it."""

from __future__ import annotations

from cellkeeper_service.domain.record import HEADER_BYTES, Header
from cellkeeper_service.domain.store import Commit
from cellkeeper_service.store.expiry import bounded_ttl_ms
from cellkeeper_service.store.redis_keys import TTL_OFFSET_BYTES, redis_key
from cellkeeper_service.store.redis_link import bulk
from cellkeeper_service.store.redis_scripts import Item

_HEADER = b"$%d\r\n%%b\r\n" % HEADER_BYTES
_APPEND = bulk(b"append") + _HEADER + _HEADER + b"%b$%d\r\n%b\r\n"
_FIRST = bulk(b"replace") + bulk(b"") + _HEADER + b"%b$%d\r\n%b\r\n"
_REPLACE = bulk(b"replace") + _HEADER + _HEADER + b"%b$%d\r\n%b\r\n"
_NO_TTL = bulk(b"")
_TTL, _NEVER = slice(TTL_OFFSET_BYTES, TTL_OFFSET_BYTES + 8), bytes(8)


def commit_item(commit: Commit) -> Item:
    """The commit's key and its arguments."""
    key, expected, header, log, checkpoint = commit
    name, after, ttl = redis_key(key), header.packed, _ttl(expected, header)
    if checkpoint is not None:
        state = bulk(checkpoint)
        if expected is None:
            return Item(name, _FIRST % (after, ttl, len(log), log) + state, 6)
        return Item(name, _REPLACE % (expected.packed, after, ttl, len(log), log) + state, 6)
    if expected is None:
        return Item(name, bulk(b"append") + bulk(b"") + bulk(after) + ttl + bulk(log), 5)
    return Item(name, _APPEND % (expected.packed, after, ttl, len(log), log), 5)


def _ttl(expected: Header | None, header: Header) -> bytes:
    """The argument that says which TTL the key is to have. Most sessions have none, and then even a look at the time
    left would be an eighth of the script's work."""
    if header.packed[_TTL] == _NEVER and expected is not None and expected.packed[_TTL] == _NEVER:
        return _NO_TTL
    return bulk(b"%d" % bounded_ttl_ms(header.ttl_ms))
