"""Records: what the store holds of a session."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

from .position import Position, advance_head

ORIGIN_BYTES = 16
NUMERICS_BYTES = 8
NO_ORIGIN = bytes(ORIGIN_BYTES)

# position 32 | updated | checkpoint step | checkpoint head 8 | created | ttl | fingerprint 32 | numerics 8 |
# origin 16 | step bytes
_LAYOUT = struct.Struct("<32sQQ8sQQ32s8s16sI")
HEADER_BYTES = _LAYOUT.size


class SessionKey(NamedTuple):
    """The address of a session. `tenant` is "" until there is authentication."""

    tenant: str
    model: str
    session: str


def numerics_digest(numerics: str) -> bytes:
    """8 bytes that stand for a numerics text in a record's header."""
    return blake2b(numerics.encode(), digest_size=NUMERICS_BYTES).digest()


@dataclass(frozen=True, slots=True)
class Header:
    """The part of a record that every commit writes anew. It packs to `HEADER_BYTES` bytes, position first."""

    position: Position
    updated_ms: int  # unix time of the last commit
    checkpoint_step: int
    checkpoint_head: bytes
    created_ms: int  # unix time of the generation's first record
    ttl_ms: int  # forgotten when idle this long; 0: never
    fingerprint: bytes  # 32 bytes: the model version
    numerics: bytes  # 8 bytes: see numerics_digest
    origin: bytes  # 16 bytes: the request that made this generation
    step_bytes: int  # bytes of one time step in the input log

    def pack(self) -> bytes:
        return _LAYOUT.pack(
            self.position.pack(),
            self.updated_ms,
            self.checkpoint_step,
            self.checkpoint_head,
            self.created_ms,
            self.ttl_ms,
            self.fingerprint,
            self.numerics,
            self.origin,
            self.step_bytes,
        )

    @classmethod
    def unpack(cls, packed: bytes) -> Header:
        """Reads the first `HEADER_BYTES` bytes; what follows them is not looked at."""
        position, *rest = _LAYOUT.unpack_from(packed)
        return cls(Position.unpack(position), *rest)


@dataclass(frozen=True, slots=True)
class Record:
    """A session at rest: the state at `header.checkpoint_step`, and the inputs from there to the position."""

    header: Header
    checkpoint: bytes  # the state tensors in the model's order, raw
    log: bytes  # (position.step - checkpoint_step) * step_bytes bytes

    @property
    def position(self) -> Position:
        return self.header.position

    def inputs(self, first_step: int, last_step: int) -> bytes:
        """The logged inputs of time steps first_step..last_step - 1, both counted from the generation's start."""
        base, width = self.header.checkpoint_step, self.header.step_bytes
        return self.log[(first_step - base) * width : (last_step - base) * width]

    def head_at(self, step: int) -> bytes:
        """This history's head at `step`, checkpoint_step <= step <= position.step."""
        if step == self.header.position.step:
            return self.header.position.head
        start = self.header.checkpoint_step
        return advance_head(self.header.checkpoint_head, self.inputs(start, step), self.header.step_bytes)
