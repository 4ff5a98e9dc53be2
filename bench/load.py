"""What a client process must do, and what it measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Load:
    """The load that a client process must generate.

    kind: client (the contender's own client), blocking (its client for threads), group (of its client), unary, frames,
    cold, engine, commit. flows: how many senders, each waiting for its answer. items: sessions in one message. steps:
    time steps of each. sessions: of cold loads, how many there are to choose from. rate: messages a second, answered or
    not; 0: a closed loop.
    """

    kind: str
    model: str
    flows: int = 1
    items: int = 1
    steps: int = 1
    sessions: int = 0
    rate: float = 0.0

    @property
    def sessions_at_once(self) -> int:
        """How many sessions have a step in flight."""
        return self.flows * self.items

    def json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Measured:
    """One round of one load.

    p50_ms, latencies: of whole messages, from when they were sent (in an open loop: due) to their last answer.
    latencies: see latencies.py. late: in an open loop: messages answered more than loops.DRAIN_SECONDS after the last
    one was due; their latencies count.
    """

    steps_per_second: float
    messages: int
    p50_ms: float
    latencies: Mapping[str, int] = field(default_factory=dict)
    offered_per_second: float = 0.0  # for open loops: messages
    late: int = 0
    beside_steps_per_second: float = 0.0  # of the second process

    def json(self) -> dict[str, Any]:
        return {name: round(value, 4) if isinstance(value, float) else value for name, value in asdict(self).items()}
