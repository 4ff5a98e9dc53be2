"""Checksums of what rows hold: of the header, and of the checkpoint together with the part of the header that names it.

SQLite does not notice a flipped bit in a page. In a header, it could make a session expire early or appear to have
been computed by other numerics. Nor does it notice that pages are of different times, as in a file that was copied
while a server wrote to it: a header could then have another step's checkpoint.
"""

from __future__ import annotations

from zlib import crc32

from cellkeeper_service.domain.position import GENERATION_BYTES
from cellkeeper_service.domain.record import HEADER_BYTES, Header, SessionKey
from cellkeeper_service.domain.store import DamagedRecord

from ..damage import damaged, read_header

STORED_BYTES = HEADER_BYTES + 4
SUMS_BYTES = 8
_CHECKPOINT = slice(40, 56)  # in a packed header: the checkpoint's step and head
Value = bytes | str | int | float | None  # SQLite lets a column hold any of them


def checksum_of(data: bytes) -> bytes:
    """Returns the CRC-32 in 4 bytes, little-endian."""
    return crc32(data).to_bytes(4, "little")


def checkpoint_sums(packed: bytes, state: bytes) -> bytes:
    """Returns what a checkpoint is stored with: its CRC-32, and that of its generation, step and head. packed: the
    record's header."""
    return checksum_of(state) + checksum_of(packed[:GENERATION_BYTES] + packed[_CHECKPOINT])


def stored_header(packed: bytes) -> bytes:
    """Returns the packed header with its checksum, as a row stores it."""
    return packed + checksum_of(packed)


def standing_header(stored: bytes) -> Header | None:
    """Returns the header of a row, or None if its checksum is wrong."""
    packed = stored[:HEADER_BYTES]
    return Header.unpack(packed) if stored == stored_header(packed) else None


def read_stored(key: SessionKey, stored: bytes) -> Header | DamagedRecord:
    """Returns the header of a row, or what is wrong with it."""
    if len(stored) != STORED_BYTES:
        return damaged(key, f"its header has {len(stored)} bytes, expected {STORED_BYTES}")
    header = standing_header(stored)
    if header is None:
        return damaged(key, "its header does not match its checksum")
    return read_header(key, header.packed)


def with_checksum(header: Value) -> Value:
    """Converts a header of layout 2 to layout 3. A value that cannot be a header stays as it is."""
    return stored_header(header) if isinstance(header, bytes) and len(header) == HEADER_BYTES else header
