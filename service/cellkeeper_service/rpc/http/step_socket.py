"""Steps over a WebSocket: each message is a frame of one item, and replies leave in the order of the messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from cellkeeper_service.domain.position import Position
from cellkeeper_service.errors import Rejection
from cellkeeper_service.rpc.catalog import Catalog
from cellkeeper_service.rpc.stream import Stream

from . import replies
from .chunk import EXPECTED, put_frame
from .fields import Fields
from .requests import check_reply, names

REPLAYED, CREATED = 2, 1


@dataclass(frozen=True, slots=True)
class Opened:
    """Stands for the first message: the socket is open, though nothing may be sent for a while."""


@dataclass(frozen=True, slots=True)
class UnfitFrame:
    """Stands for a message that is JSON but not a valid step. frame: without inputs."""

    frame: pb.StepFrame
    why: Rejection


class StepSocket(Stream):
    """One open socket."""

    def _submit(self, message: pb.StepFrame | UnfitFrame | Opened) -> None:
        match message:
            case Opened():
                self._release()
            case UnfitFrame():
                self._refuse(message.frame, message.why)
            case _:
                super()._submit(message)


def read_frame(body: Fields, frame_id: int, model: str, session: str, catalog: Catalog) -> pb.StepFrame:
    """Returns a frame of one item. Raises a Rejection. catalog: with the limits for JSON replies."""
    spec = catalog.spec(model)
    frame = pb.StepFrame(frame_id=frame_id, model=model, sessions=[session])
    put_frame(frame, body.value("inputs", EXPECTED), spec)
    frame.outputs.extend(names(body, "outputs"))
    frame.peek = body.flag("peek")
    if body.has("position"):
        at = body.position("position")
        frame.positions = Position(at.generation, at.step, at.head)
    if body.has("acked"):
        frame.acked = body.integer("acked").to_bytes(8, "little")
    if body.has("timeout_ms"):
        frame.timeout_ms = body.integer("timeout_ms", 2**32)
    body.end()
    check_reply(frame.steps[0], frame.outputs, spec, catalog)
    return frame


def write_reply(reply: pb.StepFrameReply) -> dict[str, Any]:
    """Returns the JSON reply to a frame of one item."""
    if reply.HasField("frame_error"):
        return {"error": replies.error(reply.frame_error)}
    if reply.errors:
        return {"error": replies.error(reply.errors[0].error)}
    flags = reply.flags[0]
    steps = reply.steps[0] if reply.steps else 1
    outputs = [(column, column.shape if column.per_item else (steps, *column.shape)) for column in reply.outputs]
    at = Position.unpack(reply.positions)
    return replies.applied(reply, outputs, at, replayed=bool(flags & REPLAYED), created=bool(flags & CREATED))
