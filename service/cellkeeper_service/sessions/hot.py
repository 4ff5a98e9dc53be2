"""A session's hot copy: its state beside the engine, and what is known of its record. It only makes the ordinary
case fast: the store's compare-and-set decides whether it was right."""

from __future__ import annotations

from dataclasses import dataclass

from cellkeeper_service.domain.position import Position
from cellkeeper_service.domain.record import Header

from .served import Served


@dataclass(slots=True)
class Checkpoint:
    """A state at a chunk's boundary, kept until the acks allow to write it; `tail` is the input since then."""

    step: int
    head: bytes
    state: bytes
    tail: bytearray


@dataclass(slots=True, eq=False)
class Hot:
    """header: of the record as it was last read or committed; None: there is none yet.
    ahead: the position after what was computed beyond the header, committed or not; None: nothing was.
    seed: the state at the frontier while it is not in the arena yet.
    """

    served: Served
    slot: int
    header: Header
    exists: bool  # whether the store holds `header`; False: the first commit creates the record
    ahead: Position | None = None
    current: int = 0  # which of the slot's two rows holds the state at the frontier
    seed: bytes | None = None
    checkpoint: Checkpoint | None = None  # a candidate, not written yet
    created: bool = False  # the next reply tells that the session was created

    @property
    def frontier(self) -> Position:
        """The position after everything computed, committed or not."""
        return self.header.position if self.ahead is None else self.ahead

    @property
    def row(self) -> int:
        return 2 * self.slot + self.current

    @property
    def other_row(self) -> int:
        return 2 * self.slot + 1 - self.current

    @property
    def checkpoint_due(self) -> bool:
        return self.checkpoint is None and self.frontier.step - self.header.checkpoint_step >= self.served.due_steps

    def must_checkpoint(self, steps: int, max_log_steps: int) -> bool:
        """Whether `steps` more fit into the log only behind a checkpoint at the frontier, due or not."""
        return self.checkpoint is None and self.frontier.step + steps - self.header.checkpoint_step > max_log_steps

    def log_steps_after(self, steps: int, acked: int) -> int:
        """How long the record's log would be after `steps` more, with the client's acks at `acked`."""
        start = self.header.checkpoint_step
        if self.checkpoint is None:
            if acked >= self.frontier.step:
                start = self.frontier.step
        elif self.checkpoint.step <= acked:
            start = self.checkpoint.step
        return self.frontier.step + steps - start
