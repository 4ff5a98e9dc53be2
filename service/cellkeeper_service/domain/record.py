"""Records: what the store holds for a session."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, NamedTuple

from .position import Position, advance_head

ORIGIN_BYTES = 16
NUMERICS_BYTES = 8
NO_ORIGIN = bytes(ORIGIN_BYTES)
CHUNK_OVERHEAD_BYTES = 36  # roughly what a store keeps for each logged chunk besides its inputs

# position 32 | updated | checkpoint step | checkpoint head 8 | created | ttl | fingerprint 32 | numerics 8 |
# origin 16 | step bytes
_LAYOUT = struct.Struct("<32sQQ8sQQ32s8s16sI")
HEADER_BYTES = _LAYOUT.size
_FIELDS = (
    "position",
    "updated_ms",
    "checkpoint_step",
    "checkpoint_head",
    "created_ms",
    "ttl_ms",
    "fingerprint",
    "numerics",
    "origin",
    "step_bytes",
)


_new, _new_tuple = object.__new__, tuple.__new__


class SessionKey(NamedTuple):
    """The address of a session. `tenant` is "" if the server has no token file."""

    tenant: str
    model: str
    session: str

    @classmethod
    def of_each(cls, tenant: str, model: str, sessions: Iterable[str]) -> list[SessionKey]:
        """Returns the keys of many sessions of one model."""
        return [_new_tuple(cls, (tenant, model, session)) for session in sessions]


def numerics_digest(numerics: str) -> bytes:
    """Returns the 8-byte hash that represents a numerics text in a record's header."""
    return blake2b(numerics.encode(), digest_size=NUMERICS_BYTES).digest()


class Header:
    """The part of a record that every commit rewrites: `HEADER_BYTES` bytes, position first.

    A header stays packed and its fields are decoded on access, because most headers are only compared and sent.
    Immutable; two headers are equal if their bytes are.
    """

    __slots__ = ("packed",)
    packed: bytes

    def __init__(
        self,
        position: Position,
        updated_ms: int,  # unix time of the last commit
        checkpoint_step: int,
        checkpoint_head: bytes,
        created_ms: int,  # unix time of the generation's first record
        ttl_ms: int,  # the session expires when idle this long; 0: never
        fingerprint: bytes,  # 32 bytes: the model version
        numerics: bytes,  # 8 bytes: see numerics_digest
        origin: bytes,  # 16 bytes: the request that created this generation
        step_bytes: int,  # bytes of one time step in the input log
    ) -> None:
        times = (updated_ms, checkpoint_step, checkpoint_head, created_ms, ttl_ms)
        self.packed = _LAYOUT.pack(position, *times, fingerprint, numerics, origin, step_bytes)

    @classmethod
    def unpack(cls, packed: bytes) -> Header:
        """Reads the first `HEADER_BYTES` bytes and ignores the rest."""
        header = object.__new__(cls)
        header.packed = packed if len(packed) == HEADER_BYTES else packed[:HEADER_BYTES]
        return header

    def replace(self, **changes: Any) -> Header:
        """Returns a copy with some of the constructor's arguments replaced."""
        return Header(**{**self._fields(), **changes})

    def advanced(self, position: Position, updated_ms: int, numerics: bytes) -> Header:
        """Returns the header after further steps on the same checkpoint."""
        before, header = self.packed, _new(Header)
        rest = before[40:] if before[104:112] == numerics else before[40:104] + numerics + before[112:]
        header.packed = position + updated_ms.to_bytes(8, "little") + rest
        return header

    def with_checkpoint(self, step: int, head: bytes) -> Header:
        """Returns a copy with the checkpoint at `step`, where the history's head is `head`."""
        before = self.packed
        return Header.unpack(before[:40] + step.to_bytes(8, "little") + head + before[56:])

    @property
    def position(self) -> Position:
        return Position.unpack(self.packed)

    @property
    def updated_ms(self) -> int:
        return int.from_bytes(self.packed[32:40], "little")

    @property
    def checkpoint_step(self) -> int:
        return int.from_bytes(self.packed[40:48], "little")

    @property
    def checkpoint_head(self) -> bytes:
        return self.packed[48:56]

    @property
    def created_ms(self) -> int:
        return int.from_bytes(self.packed[56:64], "little")

    @property
    def ttl_ms(self) -> int:
        return int.from_bytes(self.packed[64:72], "little")

    @property
    def fingerprint(self) -> bytes:
        return self.packed[72:104]

    @property
    def numerics(self) -> bytes:
        return self.packed[104:112]

    @property
    def origin(self) -> bytes:
        return self.packed[112:128]

    @property
    def step_bytes(self) -> int:
        return int.from_bytes(self.packed[128:132], "little")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Header) and self.packed == other.packed

    def __hash__(self) -> int:
        return hash(self.packed)

    def __repr__(self) -> str:
        return f"Header({', '.join(f'{name}={value!r}' for name, value in self._fields().items())})"

    def _fields(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        position, *rest = _LAYOUT.unpack(self.packed)
        return dict(zip(_FIELDS, [Position.unpack(position), *rest], strict=True))


@dataclass(frozen=True, slots=True)
class Record:
    """A session at rest: the state at `header.checkpoint_step`, and the inputs from there up to the position."""

    header: Header
    checkpoint: bytes  # the state tensors in the model's order, raw
    log: bytes  # (position.step - checkpoint_step) * step_bytes bytes

    @property
    def position(self) -> Position:
        return self.header.position

    def inputs(self, first_step: int, last_step: int) -> bytes:
        """Returns the logged inputs of time steps first_step..last_step - 1, counted from the generation's start."""
        base, width = self.header.checkpoint_step, self.header.step_bytes
        return self.log[(first_step - base) * width : (last_step - base) * width]

    def head_at(self, step: int) -> bytes:
        """Returns this history's head at `step`; checkpoint_step <= step <= position.step."""
        if step == self.header.position.step:
            return self.header.position.head
        start = self.header.checkpoint_step
        return advance_head(self.header.checkpoint_head, self.inputs(start, step), self.header.step_bytes)
