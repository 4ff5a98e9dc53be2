"""Encodes commits and deletes as arguments of write.lua."""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from cellkeeper_service.domain.record import Header
from cellkeeper_service.domain.store import Commit

from .keys import redis_key
from .layout import MOVING_BYTES, base_body, checkpoint_element, crc, fixed_of, inputs_element, moving_of
from .link import bulk


class Words(NamedTuple):
    """What a script does with one key. kind: the first word, which a call gives once if it is that of all its keys.

    packed: the other words in wire format (`bulk`), concatenated. number: how many these are.
    """

    kind: bytes
    packed: bytes
    number: int


class Item(NamedTuple):
    """One key and its words.

    before, after: words of separate calls for the same key, sent before and after it in the same round trip.
    trim: words for one call after it, which all items with such words share.
    """

    key: bytes
    words: Words
    before: tuple[Words, ...] = ()
    after: tuple[Words, ...] = ()
    trim: Words | None = None


def words(kind: bytes, *parts: bytes) -> Words:
    return Words(kind, b"".join([bulk(part) for part in parts]), len(parts))


EXPIRE, REPEAT, TRIM = words(b"expire"), words(b"repeat"), words(b"trim")
TOUCH, LEAVE = words(b"touch"), words(b"leave")  # for load.lua
TOUCH_WHOLE, LEAVE_WHOLE = words(b"touch whole"), words(b"leave whole")
# A header split into the pieces that make up `fixed_of` and `moving_of`: fixed, moving, fixed, moving, fixed.
_PIECES = Struct("<16s4s4s14s94s")
_APPEND = b"$%d\r\n%%b%%b%%b\r\n$%d\r\n%%b%%b%%b\r\n$%%d\r\nD%%b\r\n" % (2 * (MOVING_BYTES,))
_TTL, _NEVER = slice(64, 72), bytes(8)


def commit_item(commit: Commit) -> Item:
    key, expected, header, log, checkpoint = commit
    after = header.packed
    if expected is None:
        state = b"" if checkpoint is None else checkpoint_element(checkpoint)
        create = words(b"create", base_body(after), inputs_element(log), state)
        return Item(redis_key(key), create, after=(EXPIRE,) if after[_TTL] != _NEVER else ())
    before = expected.packed
    if checkpoint is None and after[_TTL] == _NEVER:  # the fast path, which nearly every commit takes
        a, low, b, rest, c = _PIECES.unpack(before)
        new_a, new_low, new_b, new_rest, new_c = _PIECES.unpack(after)
        if a == new_a and b == new_b and c == new_c:
            same = crc(b"%b%b%b" % (a, b, c))
            packed = _APPEND % (same, low, rest, same, new_low, new_rest, 1 + len(log), log)
            return Item(redis_key(key), Words(b"append", packed, 3))
    first, then, refresh = _ttl_calls(expected, header)
    moving = moving_of(before)
    if checkpoint is not None:
        replace = words(
            *refresh, b"replace", moving, base_body(after), inputs_element(log), checkpoint_element(checkpoint)
        )
        return Item(redis_key(key), replace, first, then, TRIM)
    if fixed_of(before) == fixed_of(after):
        entry = words(*refresh, b"append", moving, moving_of(after), inputs_element(log))
    else:
        entry = words(*refresh, b"whole", moving, fixed_of(after) + moving_of(after), inputs_element(log))
    return Item(redis_key(key), entry, first, then)


def delete_item(name: bytes, generation: bytes) -> Item:
    """Encodes a delete. name: the key.

    The push before it is the complete transaction with which a connection begins its writes; a delete must not be part
    of one.
    """
    return Item(name, words(b"delete", generation), (REPEAT,))


def _ttl_calls(expected: Header, header: Header) -> tuple[tuple[Words, ...], tuple[Words, ...], tuple[bytes, ...]]:
    """Returns the calls before and after a commit that changes the TTL, and the words of one that refreshes it.

    The old TTL is removed before the commit: a key may lose its TTL early, but must not keep one that its header does
    not ask for.
    """
    before, after = expected.packed[_TTL], header.packed[_TTL]
    if before == after:
        return (), (), () if after == _NEVER else (b"ttl", after)
    first = () if before == _NEVER else (words(b"persist", moving_of(expected.packed)),)
    if after == _NEVER:
        return first, (words(b"persist", moving_of(header.packed)),), ()
    return first, (EXPIRE,), ()
