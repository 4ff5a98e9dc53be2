"""Where a chunk belongs whose sender knows no positions: it names its place by a flag and a step number."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

from cellkeeper_service.domain.position import Position, first_position
from cellkeeper_service.domain.record import ORIGIN_BYTES, Header, Record

ENDED = b"\0ended\0\0"
"""Begins the origin in the record of a sequence that has ended; a hash of the one until then follows."""

NO_GENERATION = b""
"""Stands for that of a record that is not there."""


def ended(origin: bytes) -> bytes:
    """The origin of a record whose sequence has ended. origin: the one until then."""
    return ENDED + blake2b(origin, digest_size=ORIGIN_BYTES - len(ENDED)).digest()


def has_ended(origin: bytes) -> bool:
    """Whether the sequence of a record with this origin has ended."""
    return origin.startswith(ENDED)


def ttl_of_next(header: Header, default_ttl_ms: int) -> int:
    """The TTL of a generation that follows this one, or is a copy of it: the same, but not the short one that a
    sequence has after its end. default_ttl_ms: of new sessions."""
    return default_ttl_ms if has_ended(header.origin) else header.ttl_ms


@dataclass(frozen=True, slots=True)
class Sequenced:
    """Of a step without a position. Without `origin` the session must exist: it is never created.

    origin: not empty: the chunk starts the session anew. The record, if any, is replaced by a new generation whose
        record keeps these 16 bytes; a repeated start finds them, and is answered from the log.
    at: the step at which the chunk belongs, in whatever generation the session has; a repeated chunk is answered from
        the log. None: it continues the session, and nothing tells that it is repeated.
    end_ttl_ms: the chunk ends the sequence, whose record is kept so long, for repeated chunks alone. None: it goes on.
    """

    origin: bytes = b""
    at: int | None = None
    end_ttl_ms: int | None = None

    def continues_at(self, step: int) -> bool:
        """Whether the chunk continues a session at that step."""
        return not self.origin and (self.at is None or self.at == step)

    @property
    def asked_step(self) -> int | None:
        """The step at which the chunk belongs, where it says so."""
        return 0 if self.origin else self.at

    @property
    def ends(self) -> bool:
        return self.end_ttl_ms is not None

    def starts_over(self, standing: Header | None) -> bool:
        """Whether a new generation is to be made: the session's own, if any, is not the work of this start."""
        own = (self.origin, ended(self.origin))
        return bool(self.origin) and (standing is None or standing.origin not in own)

    def position_in(self, record: Record) -> Position | None:
        """Where the chunk belongs in this record's history; None: at its end. A step that the log does not reach
        gets the head of the record's position: it is refused for its number."""
        stands = record.position
        if self.origin:
            return first_position(stands.generation)
        if self.at is None:
            return None
        logged = record.header.checkpoint_step <= self.at <= stands.step
        return Position(stands.generation, self.at, record.head_at(self.at) if logged else stands.head)
