"""The header of a record as a row has it: the packed header, and its CRC-32 in 4 bytes, little-endian.

SQLite does not notice a flipped bit in a page. In a header it could make a session expire early, or look as if other
numerics had computed it.
"""

from __future__ import annotations

from zlib import crc32

from cellkeeper_service.domain.record import HEADER_BYTES, Header, SessionKey
from cellkeeper_service.domain.store import DamagedRecord
from cellkeeper_service.store.damage import damaged, read_header

STORED_BYTES = HEADER_BYTES + 4
Value = bytes | str | int | float | None  # SQLite lets a column hold any of them


def checksum_of(data: bytes) -> bytes:
    """As headers and checkpoints have it."""
    return crc32(data).to_bytes(4, "little")


def stored_header(packed: bytes) -> bytes:
    """What a row has of this packed header."""
    return packed + checksum_of(packed)


def standing_header(stored: bytes) -> Header | None:
    """The header of a row, if it is what was written."""
    packed = stored[:HEADER_BYTES]
    return Header.unpack(packed) if stored == stored_header(packed) else None


def read_stored(key: SessionKey, stored: bytes) -> Header | DamagedRecord:
    """The same, or what is wrong with it."""
    if len(stored) != STORED_BYTES:
        return damaged(key, f"its header has {len(stored)} bytes, expected {STORED_BYTES}")
    header = standing_header(stored)
    if header is None:
        return damaged(key, "its header is not what was written: the checksum differs")
    return read_header(key, header.packed)


def with_checksum(header: Value) -> Value:
    """What a row of layout 3 has in place of a header of layout 2. What cannot be a header stays as it is."""
    return stored_header(header) if isinstance(header, bytes) and len(header) == HEADER_BYTES else header
