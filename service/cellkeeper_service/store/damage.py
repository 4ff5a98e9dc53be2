"""Records that cannot be right: what a store reads back is looked at before it is served."""

from __future__ import annotations

from cellkeeper_service.domain.position import advance_head
from cellkeeper_service.domain.record import HEADER_BYTES, Header, Record, SessionKey
from cellkeeper_service.domain.store import StoreError


def damaged(key: SessionKey, what: str) -> StoreError:
    """A record that was read and cannot be served."""
    return StoreError(f"the record of session {key.session!r} is damaged: {what}; delete it, or restore the store")


def read_record(key: SessionKey, header: bytes, checkpoint: bytes, log: bytes) -> Record | StoreError:
    """The record of these parts, or why it cannot be one."""
    if len(header) != HEADER_BYTES:
        return damaged(key, f"its header has {len(header)} bytes, expected {HEADER_BYTES}")
    unpacked = Header.unpack(header)
    if not unpacked.step_bytes:
        return damaged(key, "its time steps have 0 bytes")
    steps = unpacked.position.step - unpacked.checkpoint_step
    if steps < 0 or len(log) != steps * unpacked.step_bytes:
        return damaged(key, f"its log has {len(log)} bytes, expected {steps} steps of {unpacked.step_bytes}")
    if advance_head(unpacked.checkpoint_head, log, unpacked.step_bytes) != unpacked.position.head:
        return damaged(
            key, f"the inputs in its log are not those that its head names, at step {unpacked.position.step}"
        )
    return Record(unpacked, checkpoint, log)
