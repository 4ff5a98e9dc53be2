"""What a client process is asked to do, and what it measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Load:
    """kind: client (the contender's own client), blocking (its client for threads), group (of its client), unary,
    frames, cold, engine, commit. flows: how many send at the same time, each waiting for its answer. items: sessions in
    one message. steps: time steps of each. sessions: of cold loads, how many there are to choose from. rate: messages a
    second whether answered or not; 0: a closed loop.
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
    """One round of one load. Milliseconds are of a whole message, from when it was due to its last answer."""

    steps_per_second: float
    messages: int
    p50_ms: float
    p99_ms: float
    p999_ms: float
    offered_per_second: float = 0.0  # open loops: messages
    unanswered: int = 0  # open loops: due, but not answered by the end
    beside_steps_per_second: float = 0.0  # what went on beside it

    def json(self) -> dict[str, Any]:
        return {name: round(value, 4) for name, value in asdict(self).items()}
