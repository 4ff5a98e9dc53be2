"""Chunks of senders that know no positions: they name their place by a flag and a step number."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

from cellkeeper_service.domain.position import Position, first_position
from cellkeeper_service.domain.record import ORIGIN_BYTES, Header, Record

ENDED = b"\0ended\0\0"
"""The first bytes of an ended sequence's origin; a hash of the origin before follows."""

NO_GENERATION = b""
"""Stands for the generation of a missing record."""


def ended(origin: bytes) -> bytes:
    """Returns the origin of a record whose sequence has ended. origin: the one before."""
    return ENDED + blake2b(origin, digest_size=ORIGIN_BYTES - len(ENDED)).digest()


def has_ended(origin: bytes) -> bool:
    """Returns whether the sequence of a record with this origin has ended."""
    return origin.startswith(ENDED)


def ttl_of_next(header: Header, default_ttl_ms: int) -> int:
    """Returns the TTL of a generation that follows this one or is a copy of it: the same, except that the short TTL of
    an ended sequence becomes `default_ttl_ms`, that of new sessions."""
    return default_ttl_ms if has_ended(header.origin) else header.ttl_ms


@dataclass(frozen=True, slots=True)
class Sequenced:
    """The place of a step without a position. Without `origin` the session must exist; it is never created.

    origin: if not empty, the chunk starts the session anew: a new generation, whose record keeps these 16 bytes,
        replaces the record. A repeated start finds them, and is answered from the log.
    at: the step at which the chunk belongs, in whatever generation stands. A repeated chunk is answered from the log.
        None: the chunk continues the session, and a repeated one is not recognized.
    end_ttl_ms: the chunk ends the sequence, and its record is kept so long, only to answer repeated chunks. None: the
        sequence goes on.
    """

    origin: bytes = b""
    at: int | None = None
    end_ttl_ms: int | None = None

    def continues_at(self, step: int) -> bool:
        """Returns whether the chunk continues a session at that step."""
        return not self.origin and (self.at is None or self.at == step)

    @property
    def ends(self) -> bool:
        return self.end_ttl_ms is not None

    def starts_over(self, standing: Header | None) -> bool:
        """Returns whether the chunk makes a new generation: it is a start, and has not made the standing one."""
        own = (self.origin, ended(self.origin))
        return bool(self.origin) and (standing is None or standing.origin not in own)

    def position_in(self, record: Record) -> Position | None:
        """Returns where the chunk belongs in this record's history; None: at its end. A step before or after
        the log gets the head of the record's position, as it is refused for its number anyway."""
        stands = record.position
        if self.origin:
            return first_position(stands.generation)
        if self.at is None:
            return None
        logged = record.header.checkpoint_step <= self.at <= stands.step
        return Position(stands.generation, self.at, record.head_at(self.at) if logged else stands.head)
