"""Positions: where in which history a step belongs, and the hash chain that names a history."""

from __future__ import annotations

import struct
from hashlib import blake2b
from typing import NamedTuple

GENERATION_BYTES = 16
HEAD_BYTES = 8
POSITION_BYTES = 32
MAX_STEP = 2**63 - 1  # of a session; a position with a later one is refused

_LAYOUT = struct.Struct("<16sQ8s")


class Position(NamedTuple):
    """One point of one history, exactly.

    generation: 16 random bytes, one life of a session.
    step: how many time steps that life has consumed.
    head: 8 bytes that name the inputs consumed.
    """

    generation: bytes
    step: int
    head: bytes

    def pack(self) -> bytes:
        """32 bytes: generation, step (little-endian), head."""
        return _LAYOUT.pack(self.generation, self.step, self.head)

    @classmethod
    def unpack(cls, packed: bytes, offset: int = 0) -> Position:
        """The inverse of `pack`, from the 32 bytes at `offset`."""
        return cls(*_LAYOUT.unpack_from(packed, offset))

    def __str__(self) -> str:
        return f"{self.generation.hex()[:8]}:{self.step}:{self.head.hex()}"


def first_position(generation: bytes, step: int = 0) -> Position:
    """Where a generation starts: its head is BLAKE2b-64(generation)."""
    return Position(generation, step, blake2b(generation, digest_size=HEAD_BYTES).digest())


def advance_head(head: bytes, inputs: bytes, step_bytes: int) -> bytes:
    """The head after `inputs`, a whole number of time steps of `step_bytes` bytes each.

    BLAKE2b-64(head, input) time step by time step, so that it does not depend on the chunking.
    """
    for start in range(0, len(inputs), step_bytes):
        head = blake2b(head + inputs[start : start + step_bytes], digest_size=HEAD_BYTES).digest()
    return head


def advance(position: Position, inputs: bytes, step_bytes: int) -> Position:
    """The position after consuming `inputs` at `position`."""
    return Position(
        position.generation,
        position.step + len(inputs) // step_bytes,
        advance_head(position.head, inputs, step_bytes),
    )
