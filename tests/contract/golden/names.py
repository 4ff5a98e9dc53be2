"""Replaces values that differ from run to run by fixed values of the same length, so that bytes can be compared.

The server draws generations at random, and derives heads and origins from them. Their fixed values are derived from
fixed generations in the same way, as the contract says. A head that the server computes differently has no fixed value,
stays in the bytes, and shows as a difference.
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
        """Returns the data with fixed values in place of real ones, raw or as hex digits."""
        for came, fixed in self._fixed.items():
            data = data.replace(came, fixed).replace(came.hex().encode(), fixed.hex().encode())
        return data

    def fix_start(self, start: bytes) -> bytes | None:
        """Does the same for the first bytes of a head. Returns None if no head begins with them."""
        found = [fixed for came, fixed in self._fixed.items() if len(came) == 8 and came.startswith(start)]
        return found[0][: len(start)] if found else None

    def generation(self, came: bytes, step: int = 0) -> Position:
        """Returns the generation's start. The first mention gives it a fixed value. step: its first step."""
        if came not in self._fixed:
            self._generations += 1
            self.add(came, blake2b(b"generation %d" % self._generations, digest_size=16).digest())
        self.add(_hash(came), _hash(self._fixed[came]))
        return Position(came, step, _hash(came))

    def advance(self, at: Position, *inputs: bytes) -> Position:
        """Returns the position after the inputs, one time step each."""
        head = at.head
        for one in inputs:
            after, fixed = _hash(head + one), _hash(self._fixed[head] + one)
            self.add(after, fixed)
            head = after
        return Position(at.generation, at.step + len(inputs), head)

    def origin(self, request_id: bytes, kind: str, *parts: bytes) -> None:
        """Adds the origin of a generation that a request begins. parts: the request's content."""
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
