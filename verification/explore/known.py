"""What a client of the explored world knows of a session, and what it waits for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cellkeeper import Position as ClientPosition
from cellkeeper._session.chunk import Chunk
from cellkeeper._session.history import History
from cellkeeper_service.domain.position import Position

from .columns import named
from .sequential_model import WIDTH, Inputs, Violation, consumed, learn, pack


@dataclass(eq=False)
class Known:
    """One session as a client knows it. consumed: the inputs up to the tail of its history, answered or not."""

    history: History
    consumed: Inputs

    def append(self, chunk: Inputs) -> None:
        """Appends a chunk, to be sent. Raises Violation if client and server would not mean the same by it."""
        start = Position(*self.history.tail)
        end = learn(start, chunk)
        appended = self.history.append(pack(chunk))
        if Position(*appended.end) != end:
            raise Violation("client and server compute different heads")
        self.consumed = consumed(end)


@dataclass(eq=False)
class Attempt:
    """One sending of a chunk, or of a call, whose chunk is None. item: its item of a group's frame. calls: the items of
    a call that has several. results: what its items were answered, by name."""

    name: str
    session: str
    chunk: Chunk | None
    item: int | None = None
    calls: tuple[Any, ...] = ()
    results: dict[str, Any] = field(default_factory=dict)


def known_at(position: Position, buffer_steps: int) -> Known:
    """Returns a session whose history begins at this position."""
    history = History(as_client(position), step_bytes=WIDTH, buffer_steps=buffer_steps)
    return Known(history, consumed(position))


def as_client(position: Position) -> ClientPosition:
    """Converts the service's position to the client's type."""
    return ClientPosition(position.generation, position.step, position.head)


def outstanding(history: History) -> list[Chunk]:
    """Returns the chunks in flight whose callers wait: not those that are replayed, or were given up before."""
    return [chunk for chunk in history._open if chunk.counted and not (chunk.held or chunk.late)]


def chunk_name(session: str, chunk: Chunk) -> str:
    return named(session, chunk.start, chunk.inputs)
