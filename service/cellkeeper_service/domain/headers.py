"""Many headers at once, each one time step on."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from struct import Struct

from .position import HEAD_BYTES
from .record import Header

# As record.Header packs it. What stays is one piece: checkpoint, created, ttl and fingerprint; origin and step bytes.
_BEFORE = Struct("<16sQ8s8x64s8x20s")  # generation, step, head, what stays, what stays
_AFTER = Struct("<16sQ8sQ64s8s20s")  # with the time and the numerics between them


def one_step_on(
    headers: Sequence[Header], inputs: Sequence[bytes], updated_ms: int, numerics: bytes, compacted: Sequence[int]
) -> list[Header]:
    """The headers after one more time step each. inputs: the step's raw input. compacted: indices of those whose
    checkpoint is then the state before that step."""
    before, after, header_of = _BEFORE.unpack, _AFTER.pack, Header.unpack
    moved = []
    for header, data in zip(headers, inputs, strict=True):
        generation, step, head, middle, end = before(header.packed)
        head = blake2b(head + data, digest_size=HEAD_BYTES).digest()
        moved.append(header_of(after(generation, step + 1, head, updated_ms, middle, numerics, end)))
    for index in compacted:
        one = moved[index].packed
        moved[index] = headers[index].compacted(one[:32], one[32:40], numerics)
    return moved
