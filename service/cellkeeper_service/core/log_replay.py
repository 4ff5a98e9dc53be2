"""Computing a record's log again: the state that it leads to, and the outputs of chunks within it."""

from __future__ import annotations

from dataclasses import dataclass, field

from cellkeeper_service.domain.record import Record

from .requests import Computable, Request, Step


@dataclass(slots=True, eq=False)
class LogReplay(Computable):
    """Computes the log of `record`, so that the request behind it finds the session's state. No client has sent it.

    duplicates: chunks that were applied before, which get their outputs again; for each, which step of the log is its
    first.
    """

    record: Record
    duplicates: dict[Step, int] = field(default_factory=dict, init=False)

    def clients(self) -> list[Request]:
        return [*self.duplicates]
