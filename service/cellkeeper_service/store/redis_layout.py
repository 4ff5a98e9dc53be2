"""The elements of a record's list in Redis, layout 2: how they are made, and what a list of them says.

    C  checkpoint  'C' crc32(state) state       the state at the header's checkpoint step
    D  inputs      'D' inputs                   of the element behind it
    B  base        'B' run fixed moving         the header after D, the inputs since the checkpoint C; always C, D, B
    S  entry       'S' link run moving          the header after D, if there is one: this moving part, and the base's
                                                fixed one
    W  entry       'W' link run fixed moving    the same with a fixed part of its own (another TTL, say)

    fixed   114 bytes  what commits seldom change in the header
    moving  22 bytes   crc32(fixed), and what every commit changes in the header: the low 4 bytes of the step, the head,
                       and the low 6 bytes of the time of the commit
    run     4 bytes    in which run of Redis the element was pushed: the first bytes of its run id
    link    7 bytes    the distance to the base in elements (3 bytes), and its mark: crc32(fixed) and the first four
                       bytes of the head, by exclusive or
    crc32   4 bytes    (integers are little-endian)

A commit is one RPUSH: of C, D and B where it writes a checkpoint, of D and one entry where it appends to the log. An
entry without inputs, or one that is pushed again, says that the record was read in another run. No element is ever
changed. The last element holds the header, and is small: the script reads it, and Redis's Lua hashes every byte that it
is given. An entry wins over earlier ones that it contradicts. docs/adr/203 says why, and why a list says the same
however often a crash of Redis brings an old push back.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from zlib import crc32

from cellkeeper_service.domain.record import HEADER_BYTES, Header, Record, SessionKey
from cellkeeper_service.domain.store import DamagedRecord
from cellkeeper_service.store.damage import damaged, read_record, reading

RUN_BYTES = 4
MOVING_BYTES = 22
FIXED_BYTES = HEADER_BYTES - 18
TTL_IN_FIXED_BYTES = 46  # where `fixed` has ttl_ms, 8 bytes: the scripts read it

_CRC = Struct("<I")
_C, _D, _B, _S, _W = b"CDBSW"
_MARK = slice(4, 8)  # of an element with a link
_IN_BASE, _IN_ENTRY = 1 + RUN_BYTES, 8 + RUN_BYTES


def fixed_of(packed: bytes) -> bytes:
    """The part of a packed header that appends seldom change."""
    return packed[:16] + packed[20:24] + packed[38:]


def moving_of(packed: bytes) -> bytes:
    """The part of a packed header that every append changes."""
    return crc(fixed_of(packed)) + packed[16:20] + packed[24:38]


def crc(part: bytes) -> bytes:
    return _CRC.pack(crc32(part))


def mark_of(moving: bytes) -> bytes:
    """What names a base, by its moving part."""
    return bytes([one ^ other for one, other in zip(moving[:4], moving[8:12], strict=False)])


def joined(fixed: bytes, moving: bytes) -> bytes:
    """The packed header of these parts."""
    return fixed[:16] + moving[4:8] + fixed[16:20] + moving[8:] + fixed[20:]


def checkpoint_element(state: bytes) -> bytes:
    return b"C" + crc(state) + state


def inputs_element(log: bytes) -> bytes:
    return b"D" + log


def base_body(packed: bytes) -> bytes:
    """What the script makes a base of, by the tag and the run. packed: the header."""
    return fixed_of(packed) + moving_of(packed)


def read_elements(key: SessionKey, elements: Sequence[bytes]) -> Record | DamagedRecord:
    """The record that a list holds, or what is wrong with it."""
    at = _base_of(elements)
    standing = _standing(elements[-1], None if at is None else elements[at])
    return reading(key, standing, lambda: _read(key, elements, at, standing))


def _read(
    key: SessionKey, elements: Sequence[bytes], at: int | None, standing: Header | None
) -> Record | DamagedRecord:
    """at: the index of the base. standing: the header that the list ends with."""
    if at is None or at < 2 or elements[at - 2][:1] != b"C" or elements[at - 1][:1] != b"D":
        return damaged(key, "its last entry does not lead to a checkpoint", standing)
    base, state = elements[at], elements[at - 2][5:]
    if elements[at - 2][1:5] != crc(state):
        return damaged(key, "its checkpoint is not what was written: the checksum differs", standing)
    fixed, moving = _split(base, _IN_BASE)
    if moving[:4] != crc(fixed):
        return damaged(key, "its base is not what was written: the checksum differs", standing)
    header = Header.unpack(joined(fixed, moving))
    step_bytes, start = header.step_bytes, header.position.step
    if not step_bytes:
        return damaged(key, "its time steps have 0 bytes", standing)
    mark = mark_of(moving)
    kept: list[tuple[int, bytes]] = []  # the step after each chunk, and the chunk
    chunk = b""
    for element in elements[at + 1 :]:
        if element[0] == _D:
            chunk = element[1:]
            continue
        mine, chunk = chunk, b""
        if element[0] not in (_S, _W) or element[_MARK] != mark:
            continue  # a checkpoint that was lost for a while, and is not the one that the record went on from
        own, now = _split(element, _IN_ENTRY) if element[0] == _W else (fixed, element[_IN_ENTRY:])
        if now[:4] != (crc(own) if element[0] == _W else moving[:4]):
            return damaged(key, "an entry does not belong to its base", standing)
        header = Header.unpack(joined(own, now))
        after = header.position.step
        before = after - len(mine) // step_bytes
        while kept and kept[-1][0] > before:
            kept.pop()  # it was written on the same step, and lost for a while
        if (kept[-1][0] if kept else start) != before:
            return damaged(key, f"its entries do not follow each other: one starts at step {before}", standing)
        kept.append((after, mine))
    return read_record(key, header.packed, state, b"".join([elements[at - 1][1:], *(chunk for _, chunk in kept)]))


def standing_header(last: bytes, base: bytes | None) -> bytes:
    """The packed header that a list ends with: its last element, and the base of that where it is an S."""
    if last[0] == _B:
        return joined(*_split(last, _IN_BASE))
    if last[0] == _S and base is None:
        raise ValueError("an entry without its base")
    if base is None or last[0] == _W:
        return joined(*_split(last, _IN_ENTRY))
    return joined(_split(base, _IN_BASE)[0], last[_IN_ENTRY:])


def _standing(last: bytes, base: bytes | None) -> Header | None:
    """The same where there is one: the scripts see it there, too."""
    if last[:1] not in (b"B", b"W") and (last[:1] != b"S" or base is None):
        return None
    packed = standing_header(last, base)
    return Header.unpack(packed) if len(packed) == HEADER_BYTES else None


def _base_of(elements: Sequence[bytes]) -> int | None:
    """The index of the base that the last element goes back to."""
    last = elements[-1]
    if last[:1] == b"B":
        return len(elements) - 1
    if last[:1] not in (b"S", b"W"):
        return None
    # The distance was right when the entry was written; what a crash brought back lies in between now.
    for at in range(len(elements) - 1 - int.from_bytes(last[1:4], "little"), -1, -1):
        element = elements[at]
        if element[:1] == b"B" and mark_of(element[_IN_BASE + FIXED_BYTES :]) == last[_MARK]:
            return at
    return None


def _split(element: bytes, start: int) -> tuple[bytes, bytes]:
    """fixed, moving."""
    middle = start + FIXED_BYTES
    return element[start:middle], element[middle:]
