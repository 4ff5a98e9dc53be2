"""Chunks, which a history consists of."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from ..position import Position


class ChunkState(Enum):
    QUEUED = "queued"  # to be sent, or sent again
    IN_FLIGHT = "in flight"  # sent, outcome unknown
    DONE = "done"  # answered
    DROPPED = "dropped"  # its caller was told that it failed


@dataclass(slots=True, eq=False, repr=False)
class Chunk:
    """Consecutive time steps of one session, sent together.

    inputs: their raw bytes in the model's dtype. steps: how many. start, end: the positions before and after. held: its
    reply was already delivered, and it is sent again only because the server lost it. acked_sent: the step up to which
    this client held every reply when the chunk was last sent. uncertain: an attempt ended without an outcome, so it may
    have been applied. late: its caller stopped waiting. call: the StepCall that it belongs to; None for a replay.
    """

    inputs: bytes
    start: Position
    end: Position
    call: Any = None
    state: ChunkState = ChunkState.QUEUED
    held: bool = False
    counted: bool = False  # as one of those in flight
    acked_sent: int = 0
    uncertain: bool = False
    late: bool = False
    steps: int = field(init=False)

    def __post_init__(self) -> None:
        self.steps = self.end[1] - self.start[1]

    @property
    def may_be_applied(self) -> bool:
        """True if the chunk was sent and no outcome says that the server did not apply it."""
        return self.uncertain or self.state is ChunkState.IN_FLIGHT

    def __repr__(self) -> str:
        return f"<Chunk {self.start.step}..{self.end.step} {self.state.value}>"
