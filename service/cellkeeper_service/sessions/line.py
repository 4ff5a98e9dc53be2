"""A session's line: its requests first in, first out, and how far the first of them has come."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from cellkeeper_service.core.requests import Write
from cellkeeper_service.domain.position import Position
from cellkeeper_service.domain.record import Record, SessionKey
from cellkeeper_service.domain.store import Commit, DamagedRecord, Delete

from .cohort import Cohort
from .hot import Hot
from .requests import Delete as DeleteRequest
from .requests import Request, Step, StepReply
from .run import Run


@dataclass(slots=True, eq=False)
class Applied:
    """A computed chunk that waits for its commit."""

    request: Step
    reply: StepReply
    after: Position
    acked: int


@dataclass(slots=True, eq=False)
class Changing:
    """An Open, Reset, SetState, CarryOver or Plant that waits for its commit."""

    request: Request
    write: Write


@dataclass(slots=True, eq=False)
class Erasing:
    """A Delete that waits for the store. generation: of the record to be deleted; empty: it has no header."""

    request: DeleteRequest
    generation: bytes


Pending = Applied | Changing | Erasing


@dataclass(slots=True, eq=False)
class Flight:
    """One commit or delete that the store has not answered yet, and what it carries."""

    line: Line
    items: list[Pending]
    call: Commit | Delete
    hot: Hot | None = None  # the copy that the commit is of


@dataclass(slots=True, eq=False)
class Line:
    """One session on this replica.

    record: the store's record as read for requests up to number `read_number`, while nothing of ours has been sent
    since; `read` tells whether there is such a reading.
    """

    key: SessionKey
    queue: deque[Request] = field(default_factory=deque)
    hot: Hot | None = None
    run: Run | None = None
    cohort: Cohort | None = None  # it has a step in there that is neither committed nor refused yet
    pending: list[Pending] = field(default_factory=list)
    flight: Flight | None = None
    loading: bool = False
    load_started: float = 0.0
    load_number: int = 0
    starved: bool = False
    read: bool = False
    record: Record | None = None
    damage: DamagedRecord | None = None  # what the reading found instead of a record
    read_number: int = 0

    @property
    def settled(self) -> bool:
        """Nothing of this session is being read, computed or written."""
        return not (self.run or self.pending or self.flight or self.loading) and self.cohort is None

    @property
    def idle(self) -> bool:
        return self.settled and not self.queue

    def log_fits(self, hot: Hot, step: Step, max_log_steps: int) -> bool:
        """Whether the record's log has room for the chunk, behind what is computed and not committed yet."""
        acked = step.acked_at(hot.frontier.step)
        for item in self.pending:
            if isinstance(item, Applied):
                acked = min(acked, item.acked)
        return hot.log_steps_after(step.steps, acked) <= max_log_steps

    def forget_reading(self) -> None:
        self.read = False
        self.record = self.damage = None

    def take_first(self) -> Any:
        return self.queue.popleft()
