"""The elements of a record's list in Redis, layout 2: how they are built, and how a list of them is read.

    C  checkpoint  'C' crc32(state) state       the state at the header's checkpoint step
    D  inputs      'D' inputs                   the inputs of the element after it
    B  base        'B' run fixed moving         the header after D, the inputs since the checkpoint C; always C, D, B
    S  entry       'S' link run moving          the header after D, if there is a D: this moving part and the base's
                                                fixed part
    W  entry       'W' link run fixed moving    the same with a fixed part of its own (for another TTL, say)

    fixed   114 bytes  the parts of the header that commits seldom change
    moving  22 bytes   crc32(fixed), and the parts of the header that every commit changes: the low 4 bytes of the step,
                       the head, and the low 6 bytes of the time of the commit
    run     4 bytes    the run of Redis in which the element was pushed: the first bytes of its run id
    link    7 bytes    the distance to the base in elements (3 bytes), and the base's mark: the XOR of crc32(fixed) and
                       the first four bytes of the head
    crc32   4 bytes    (all integers are little-endian)

A commit is one RPUSH: of C, D and B if it writes a checkpoint, of D and one entry if it appends to the log. An
entry without inputs repeats the last header: the scripts push it when they read a record that was last written in
another run, and after a connection's first write. No element is ever changed. The last element holds the header and
is small, because the scripts read it, and Redis's Lua hashes every byte that it is given. The heads tell which earlier
entries count. docs/adr/203 says why, and why a list reads the same however often a crash of Redis brings back an old
push.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import NamedTuple
from zlib import crc32

from cellkeeper_service.domain.position import advance_head
from cellkeeper_service.domain.record import HEADER_BYTES, Header, Record, SessionKey
from cellkeeper_service.domain.store import DamagedRecord

from ..damage import damaged, read_record, reading

RUN_BYTES = 4
MOVING_BYTES = 22
FIXED_BYTES = HEADER_BYTES - 18

_CRC = Struct("<I")
_C, _D, _B, _S, _W = b"CDBSW"
_MARK = slice(4, 8)  # in an element with a link
_IN_BASE, _IN_ENTRY = 1 + RUN_BYTES, 8 + RUN_BYTES


def fixed_of(packed: bytes) -> bytes:
    """Returns the part of a packed header that commits seldom change."""
    return packed[:16] + packed[20:24] + packed[38:]


def moving_of(packed: bytes) -> bytes:
    """Returns the part of a packed header that every commit changes, after the CRC-32 of the fixed part."""
    return crc(fixed_of(packed)) + packed[16:20] + packed[24:38]


def crc(part: bytes) -> bytes:
    return _CRC.pack(crc32(part))


def mark_of(moving: bytes) -> bytes:
    """Returns the mark that identifies a base, computed from its moving part."""
    return bytes([one ^ other for one, other in zip(moving[:4], moving[8:12], strict=False)])


def joined(fixed: bytes, moving: bytes) -> bytes:
    """Returns the packed header made of these parts."""
    return fixed[:16] + moving[4:8] + fixed[16:20] + moving[8:] + fixed[20:]


def checkpoint_element(state: bytes) -> bytes:
    return b"C" + crc(state) + state


def inputs_element(log: bytes) -> bytes:
    return b"D" + log


def base_body(packed: bytes) -> bytes:
    """Returns a base without its tag and run, which the script adds. packed: the header."""
    return fixed_of(packed) + moving_of(packed)


def read_elements(key: SessionKey, elements: Sequence[bytes]) -> Record | DamagedRecord:
    """Returns the record that a list holds, or what is wrong with it."""
    at = _base_of(elements)
    packed = standing_header(elements[-1], None if at is None else elements[at])
    standing = None if packed is None else Header.unpack(packed)
    return reading(key, standing, lambda: _read(key, elements, at, standing))


def _read(
    key: SessionKey, elements: Sequence[bytes], at: int | None, standing: Header | None
) -> Record | DamagedRecord:
    """Reads the record. at: the index of the base. standing: the header that the list ends with."""
    if at is None or at < 2 or elements[at - 2][:1] != b"C" or elements[at - 1][:1] != b"D":
        return damaged(key, "its last entry does not lead to a checkpoint", standing)
    base, state = elements[at], elements[at - 2][5:]
    if elements[at - 2][1:5] != crc(state):
        return damaged(key, "its checkpoint does not match its checksum", standing)
    fixed, moving = _split(base, _IN_BASE)
    if moving[:4] != crc(fixed):
        return damaged(key, "its base does not match its checksum", standing)
    header = Header.unpack(joined(fixed, moving))
    if not header.step_bytes:
        return damaged(key, "its time steps have 0 bytes", standing)
    log = _log(elements, at, fixed, moving, header)
    if log is None:
        return damaged(key, "its entries do not form a chain from its base to the last one", standing)
    last = elements[-1]
    own, now = (fixed, moving) if last[0] == _B else _parts(last, fixed)
    if now[:4] != crc(own):
        return damaged(key, "its last entry does not belong to its base", standing)
    return read_record(key, joined(own, now), state, b"".join([elements[at - 1][1:], *log]))


class _Entry(NamedTuple):
    """One entry of the log. earlier: the entries that end where it starts, nearest first."""

    step: int
    head: bytes
    chunk: bytes
    earlier: tuple[_Entry, ...]


def _log(elements: Sequence[bytes], at: int, fixed: bytes, moving: bytes, base: Header) -> list[bytes] | None:
    """Returns the inputs of the entries that lead from the base to the last one, or None if none do.

    Each entry follows the nearest earlier one whose head, advanced by the entry's inputs, gives the entry's head. Other
    entries were lost in a crash of Redis and came back after the session had continued without them.
    """
    mark, step_bytes = mark_of(moving), base.step_bytes
    first = entry = _Entry(base.position.step, base.position.head, b"", ())
    at_step: dict[int, tuple[_Entry, ...]] = {first.step: (first,)}
    chunk = b""
    for element in elements[at + 1 :]:
        if element[0] == _D:
            chunk = element[1:]
            continue
        mine, chunk = chunk, b""
        if element[0] in (_S, _W) and element[_MARK] == mark:  # otherwise it belongs to an abandoned checkpoint
            position = Header.unpack(joined(*_parts(element, fixed))).position
            step, head = position.step, position.head
            entry = _Entry(step, head, mine, at_step.get(step - len(mine) // step_bytes, ()))
            at_step[step] = (entry, *at_step.get(step, ()))
    chunks = []
    while entry is not first:
        chunks.append(entry.chunk)
        earlier = entry.earlier
        if not entry.chunk or len({one.head for one in earlier}) > 1:
            earlier = tuple(one for one in earlier if advance_head(one.head, entry.chunk, step_bytes) == entry.head)
        if not earlier:
            return None
        entry = earlier[0]
    return chunks[::-1]


def standing_header(last: bytes, base: bytes | None) -> bytes | None:
    """Returns the packed header that a list ends with, as the scripts see it; None if there is none. base: the last
    element's base, needed if that is an S."""
    match last[:1]:
        case b"B":
            packed = joined(*_split(last, _IN_BASE))
        case b"W":
            packed = joined(*_split(last, _IN_ENTRY))
        case b"S" if base is not None:
            packed = joined(_split(base, _IN_BASE)[0], last[_IN_ENTRY:])
        case _:
            return None
    return packed if len(packed) == HEADER_BYTES else None


def _base_of(elements: Sequence[bytes]) -> int | None:
    """Returns the index of the last element's base, or None."""
    last = elements[-1]
    if last[:1] == b"B":
        return len(elements) - 1
    if last[:1] not in (b"S", b"W"):
        return None
    # The distance was right when the entry was written; elements that a crash brought back may now lie in between.
    for at in range(len(elements) - 1 - int.from_bytes(last[1:4], "little"), -1, -1):
        element = elements[at]
        if element[:1] == b"B" and mark_of(element[_IN_BASE + FIXED_BYTES :]) == last[_MARK]:
            return at
    return None


def _split(element: bytes, start: int) -> tuple[bytes, bytes]:
    """Returns (fixed, moving), read from `start` on."""
    middle = start + FIXED_BYTES
    return element[start:middle], element[middle:]


def _parts(entry: bytes, base_fixed: bytes) -> tuple[bytes, bytes]:
    """Returns (fixed, moving) of an entry."""
    return _split(entry, _IN_ENTRY) if entry[0] == _W else (base_fixed, entry[_IN_ENTRY:])
