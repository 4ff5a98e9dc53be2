"""What a client process must do, and what it measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass
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

    def json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Measured:
    """One round of one load. Milliseconds are for a whole message, from when it was due to its last answer."""

    steps_per_second: float
    messages: int
    p50_ms: float
    p99_ms: float
    p999_ms: float
    offered_per_second: float = 0.0  # for open loops: messages
    unanswered: int = 0  # for open loops: due, but not answered by the end
    beside_steps_per_second: float = 0.0  # of the second process

    def json(self) -> dict[str, Any]:
        return {name: round(value, 4) for name, value in asdict(self).items()}
