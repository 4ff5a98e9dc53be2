"""Computing a record's log again: the state that it leads to, and the outputs of chunks within it."""

from __future__ import annotations

from dataclasses import dataclass, field

from cellkeeper_service.domain.record import Record

from .outputs import Piece
from .requests import Computable, Request, Step


@dataclass(slots=True, eq=False)
class LogReplay(Computable):
    """Not a client's: it computes a record's log, so that the request behind it finds the session's state.

    record: of which the state is made. duplicates: chunks that lie within the log, each with the log's steps
    first..last - 1 that are its own: they get their outputs again.
    """

    record: Record
    duplicates: list[Duplicate]

    def clients(self) -> list[Request]:
        return [duplicate.step for duplicate in self.duplicates]


@dataclass(slots=True, eq=False)
class Duplicate:
    """A chunk that was applied before, and which steps of the replayed log it is."""

    step: Step
    first: int
    last: int
    pieces: list[Piece] = field(default_factory=list)
    state: bytes | None = None  # at its end, where it is wanted
