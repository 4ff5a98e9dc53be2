"""Damaged records: everything that a store reads is checked before it is served."""

from __future__ import annotations

import struct
from collections.abc import Callable

from cellkeeper_service.domain.clock import MAX_UNIX_MS
from cellkeeper_service.domain.position import MAX_STEP, advance_head
from cellkeeper_service.domain.record import HEADER_BYTES, Header, Record, SessionKey
from cellkeeper_service.domain.store import DamagedRecord

BAD_ID = "its id is not UTF-8"


def damaged(key: SessionKey, what: str, header: Header | None = None) -> DamagedRecord:
    """Returns the error for a record that was read and cannot be served. header: the stored one, if it has the right
    length."""
    text = f"the record of session {key.session!r} is damaged: {what}; delete the session, or restore the store"
    return DamagedRecord(text, header)


def read_header(key: SessionKey, packed: bytes) -> Header | DamagedRecord:
    """Returns the header in these bytes, or why they cannot be one."""
    if len(packed) != HEADER_BYTES:
        return damaged(key, f"its header has {len(packed)} bytes, expected {HEADER_BYTES}")
    header = Header.unpack(packed)
    step, start = header.position.step, header.checkpoint_step
    if step > MAX_STEP:
        return damaged(key, f"it is at step {step}, expected at most {MAX_STEP}", header)
    if start > step:
        return damaged(key, f"its checkpoint is at step {start}, after the record's own step {step}", header)
    if not header.step_bytes:
        return damaged(key, "its time steps have 0 bytes", header)
    for name, ms in (("created", header.created_ms), ("last written", header.updated_ms)):
        if ms > MAX_UNIX_MS:
            return damaged(key, f"it was {name} at {ms} ms after 1970, expected at most {MAX_UNIX_MS}", header)
    return header  # any TTL is valid: stores bound it by expiry.MAX_TTL_MS


def read_record(key: SessionKey, packed: bytes, checkpoint: bytes, log: bytes) -> Record | DamagedRecord:
    """Returns the record made of these parts, or why they cannot be one."""
    header = read_header(key, packed)
    if isinstance(header, DamagedRecord):
        return header
    steps = header.position.step - header.checkpoint_step
    if len(log) != steps * header.step_bytes:
        what = f"its log has {len(log)} bytes, expected {steps} steps of {header.step_bytes}"
        return damaged(key, what, header)
    if advance_head(header.checkpoint_head, log, header.step_bytes) != header.position.head:
        what = f"the inputs in its log do not match its head, at step {header.position.step}"
        return damaged(key, what, header)
    return Record(header, checkpoint, log)


def reading(
    key: SessionKey, header: Header | None, read: Callable[[], Record | DamagedRecord]
) -> Record | DamagedRecord:
    """Calls `read`, and returns a damaged record if it cannot parse the record's parts. header: the stored one."""
    try:
        return read()
    except (IndexError, TypeError, ValueError, struct.error) as error:
        return damaged(key, f"it cannot be decoded ({type(error).__name__}: {error})", header)
