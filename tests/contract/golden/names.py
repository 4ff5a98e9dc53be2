"""Fixed values in place of those that differ from run to run, of the same length, so that bytes can be compared.

Generations are drawn at random by the server, and heads and origins are made of them. Their fixed values are made of
fixed generations in the same way, as the contract says: a head that the server computes otherwise has no fixed value,
stays in the bytes, and shows.
"""

from __future__ import annotations

import struct
from hashlib import blake2b
from typing import NamedTuple


class Position(NamedTuple):
    generation: bytes
    step: int
    head: bytes

    def pack(self) -> bytes:
        return struct.pack("<16sQ8s", *self)


class Names:
    def __init__(self) -> None:
        self._fixed: dict[bytes, bytes] = {}
        self._generations = 0

    def __contains__(self, came: bytes) -> bool:
        return came in self._fixed

    def fix(self, data: bytes) -> bytes:
        """data with the fixed values, in their raw form and as hex digits."""
        for came, fixed in self._fixed.items():
            data = data.replace(came, fixed).replace(came.hex().encode(), fixed.hex().encode())
        return data

    def fix_start(self, start: bytes) -> bytes | None:
        """The same of the first bytes of a head; None where no head begins with them."""
        found = [fixed for came, fixed in self._fixed.items() if len(came) == 8 and came.startswith(start)]
        return found[0][: len(start)] if found else None

    def generation(self, came: bytes, step: int = 0) -> Position:
        """Where the generation starts; its first mention gives it a fixed value. step: its first step."""
        if came not in self._fixed:
            self._generations += 1
            self.add(came, blake2b(b"generation %d" % self._generations, digest_size=16).digest())
        self.add(_hash(came), _hash(self._fixed[came]))
        return Position(came, step, _hash(came))

    def advance(self, at: Position, *inputs: bytes) -> Position:
        """The position behind the inputs, time step by time step."""
        head = at.head
        for one in inputs:
            after, fixed = _hash(head + one), _hash(self._fixed[head] + one)
            self.add(after, fixed)
            head = after
        return Position(at.generation, at.step + len(inputs), head)

    def origin(self, request_id: bytes, kind: str, *parts: bytes) -> None:
        """The origin of a generation that a request makes. parts: what it asks."""
        self.add(
            _hash(request_id + _content(kind, *parts)),
            _hash(request_id + _content(kind, *(self.fix(part) for part in parts))),
        )

    def add(self, came: bytes, fixed: bytes) -> None:
        self._fixed[came] = fixed


def _content(kind: str, *parts: bytes) -> bytes:
    text = b"".join(len(part).to_bytes(8, "little") + part for part in (kind.encode(), *parts))
    return blake2b(text, digest_size=16).digest()


def _hash(data: bytes) -> bytes:
    return blake2b(data, digest_size=8).digest()
