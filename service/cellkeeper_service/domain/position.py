"""Positions, which name one point of one history, and the hash chain that names a history."""

from __future__ import annotations

import struct
from hashlib import blake2b
from typing import Any

GENERATION_BYTES = 16
HEAD_BYTES = 8
POSITION_BYTES = 32
MAX_STEP = 2**63 - 1  # positions with a later step are refused

_LAYOUT = struct.Struct("<16sQ8s")
_pack, _unpack, _new = _LAYOUT.pack, _LAYOUT.unpack, bytes.__new__
_EMPTY_HASH = blake2b(digest_size=HEAD_BYTES)


class Position(bytes):
    """One point of one history, kept as the 32 bytes that records and messages contain, because most positions are only
    compared and passed on.

    generation: 16 random bytes, new after each reset, set-state, expiry and delete.
    step: how many time steps that generation has consumed, little-endian in bytes 16 to 23.
    head: 8 bytes that name the inputs consumed.
    """

    __slots__ = ()

    def __new__(cls, generation: bytes, step: int, head: bytes) -> Position:
        return _new(cls, _pack(generation, step, head))

    @classmethod
    def unpack(cls, packed: bytes, offset: int = 0) -> Position:
        """Reads the 32 bytes at `offset`."""
        return _new(cls, packed[offset : offset + POSITION_BYTES])

    @classmethod
    def unpack_all(cls, packed: bytes) -> list[Position]:
        """Reads positions packed one after another."""
        return [_new(cls, packed[at : at + POSITION_BYTES]) for at in range(0, len(packed), POSITION_BYTES)]

    def __getnewargs__(self) -> tuple[bytes, int, bytes]:  # type: ignore[override]
        """Supports copy and pickle."""
        return self.generation, self.step, self.head

    @property
    def generation(self) -> bytes:
        return self[:GENERATION_BYTES]

    @property
    def step(self) -> int:
        return int.from_bytes(self[16:24], "little")

    @property
    def head(self) -> bytes:
        return self[24:]

    def changed(self, **changes: Any) -> Position:
        """Returns a copy with some of the constructor's arguments replaced."""
        return Position(**{"generation": self.generation, "step": self.step, "head": self.head, **changes})

    def __str__(self) -> str:
        return f"{self.generation.hex()[:8]}:{self.step}:{self.head.hex()}"

    def __repr__(self) -> str:
        return f"Position(generation={self.generation!r}, step={self.step}, head={self.head!r})"


def first_position(generation: bytes, step: int = 0) -> Position:
    """Returns the position at which a generation starts; its head is BLAKE2b-64(generation)."""
    return Position(generation, step, blake2b(generation, digest_size=HEAD_BYTES).digest())


def advance_head(head: bytes, inputs: bytes, step_bytes: int) -> bytes:
    """Returns the head after `inputs`, a whole number of time steps of `step_bytes` bytes each.

    It hashes BLAKE2b-64(head, input) for each time step, so the result does not depend on the chunking.
    """
    for start in range(0, len(inputs), step_bytes):
        head = _hash(head, inputs[start : start + step_bytes])
    return head


def _hash(head: bytes, inputs: bytes) -> bytes:
    found = _EMPTY_HASH.copy()  # a third cheaper than constructing one
    found.update(head)
    found.update(inputs)
    return found.digest()


def advance(position: Position, inputs: bytes, step_bytes: int) -> Position:
    """Returns the position after `inputs` are consumed at `position`."""
    generation, step, head = _unpack(position)
    if len(inputs) == step_bytes:  # `advance_head` inlined: every single-step request takes this path
        found = _EMPTY_HASH.copy()
        found.update(head)
        found.update(inputs)
        return _new(Position, _pack(generation, step + 1, found.digest()))
    head = advance_head(head, inputs, step_bytes)
    return _new(Position, _pack(generation, step + len(inputs) // step_bytes, head))
