"""Sends requests in turn and tracks the sessions' positions, so that their heads get fixed values."""

from __future__ import annotations

from typing import Any

from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from .messages import MODEL, Rows, row_bytes, step_request
from .names import Names, Position
from .transcript import Transcript


class Sender:
    """title: of the call's entry in the golden file."""

    def __init__(self, transcript: Transcript, names: Names) -> None:
        self.transcript, self.names = transcript, names
        self._ids = 0

    def call(self, title: str, method: str, request: Any) -> list[Any]:
        return self.transcript.call(title, method, request)

    def new_id(self) -> bytes:
        self._ids += 1
        return b"request id %5d" % self._ids

    def open(self, title: str, session: str, **fields: Any) -> Position:
        """Returns the session's position, or an all-zero position if it is refused."""
        request = pb.OpenRequest(model=MODEL, session=session, **{"request_id": self.new_id(), **fields})
        replies = self.call(title, "Open", request)
        if not replies:
            return Position(bytes(16), 0, bytes(8))
        position = replies[0].position
        self.names.generation(position.generation)
        return Position(position.generation, position.step, position.head)

    def step(
        self, title: str, session: str, position: Position | None, rows: Rows, at: Position | None = None, **fields: Any
    ) -> Position:
        """Returns the session's position after the rows, provided they are applied.

        at: the session's position, for a step without one; None if the step creates the session.
        """
        request = step_request(session, position, rows, **fields)
        at = position or at
        if at is None:
            (reply,) = self.call(title, "Step", request)
            return self.names.advance(self.names.generation(reply.position.generation), *map(row_bytes, rows))
        after = self.names.advance(at, *map(row_bytes, rows)) if at.head in self.names else at
        self.call(title, "Step", request)
        return after

    def change(self, title: str, method: str, request: Any) -> list[Position]:
        """Returns the session's new position for each item that was carried out."""
        found = []
        for reply in self.call(title, method, request):
            for result in reply.results:
                if result.HasField("position"):
                    position = result.position
                    self.names.generation(position.generation)
                    found.append(Position(position.generation, position.step, position.head))
        return found
