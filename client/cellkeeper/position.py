"""Positions, which say where in which history a step belongs, and the hash chain that names a history."""

from __future__ import annotations

import struct
from hashlib import blake2b
from typing import NamedTuple

GENERATION_BYTES = 16
HEAD_BYTES = 8
POSITION_BYTES = 32

LAYOUT = struct.Struct("<16sQ8s")
_BLANK = blake2b(digest_size=HEAD_BYTES)  # copied for each use: half the time of constructing one
_new = tuple.__new__


class Position(NamedTuple):
    """Identifies one point of one history, exactly.

    generation: 16 random bytes, which change when the session starts anew.
    step: how many time steps that generation has consumed.
    head: 8 bytes that name the inputs consumed.
    """

    generation: bytes
    step: int
    head: bytes

    def pack(self) -> bytes:
        """Returns 32 bytes: generation, step (little-endian), head."""
        return LAYOUT.pack(self.generation, self.step, self.head)

    @classmethod
    def unpack(cls, packed: bytes, offset: int = 0) -> Position:
        """Inverts `pack`, from the 32 bytes at `offset`."""
        return cls(*LAYOUT.unpack_from(packed, offset))

    def advance(self, inputs: bytes, step_bytes: int) -> Position:
        """Returns the position after consuming `inputs`, a whole number of time steps of `step_bytes` bytes each."""
        generation, step, head = self
        if len(inputs) == step_bytes:
            digest = _BLANK.copy()
            digest.update(head + inputs)
            return _new(Position, (generation, step + 1, digest.digest()))  # skips __new__
        for start in range(0, len(inputs), step_bytes):
            head = blake2b(head + inputs[start : start + step_bytes], digest_size=HEAD_BYTES).digest()
        return Position(generation, step + len(inputs) // step_bytes, head)

    def __repr__(self) -> str:
        """Short, for people: the first digits of generation and head."""
        return f"Position({self.generation.hex()[:8]} at step {self.step}, head {self.head.hex()[:8]})"

    def __str__(self) -> str:
        """In full, as hexadecimal digits and the step; `parse` reads it back."""
        return f"{self.generation.hex()}:{self.step}:{self.head.hex()}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Inverts `str`. Raises ValueError."""
        wrong = (
            f"got {text[:80]!r}, expected 32 hexadecimal digits, a step and 16 hexadecimal digits, separated by colons"
        )
        try:
            generation, step, head = text.split(":")
            position = cls(bytes.fromhex(generation), int(step), bytes.fromhex(head))
        except ValueError:
            raise ValueError(wrong) from None
        if len(position.generation) != GENERATION_BYTES or len(position.head) != HEAD_BYTES or position.step < 0:
            raise ValueError(wrong)
        return position


def first_position(generation: bytes, step: int = 0) -> Position:
    """Returns the start of a generation, whose head is BLAKE2b-64(generation)."""
    return Position(generation, step, blake2b(generation, digest_size=HEAD_BYTES).digest())
