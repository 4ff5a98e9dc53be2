"""A group's frame: builds its message from columns, and reads the columns of its replies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from .._session.frame_format import FrameFormat
from .._session.group_call import GroupPart, ReplyColumns
from .._session.group_sender import GroupSender
from ..errors import CellkeeperError
from ..position import POSITION_BYTES
from ..types import Array
from .frame_codec import INDEX, Column, refuse_answered
from .requests import frame_fields
from .wire import as_requested, missing_output, unreadable


class GroupFrame:
    """One part of a group's call, first in an endpoint's queue, then in flight. See InflightFrame."""

    def __init__(self, part: GroupPart, sender: GroupSender) -> None:
        self.queued = False
        self.frame_id = 0
        self.sent_at = 0.0
        self.heard = False
        self.items = self.unanswered = len(part.chunk.members)
        self.steps = part.chunk.steps * self.items
        self.endpoint = part.endpoint
        self._part = part
        self._sender = sender
        self._timeout_ms = 0

    def go_on(self) -> None:
        """Reroutes the frame, whose endpoint was lost before it was sent."""
        self._sender.reroute(self._part)

    def take(self, now: float) -> bool:
        """Takes it out of the queue. Returns False if it need not be sent any more. now: on the event loop's clock."""
        self.queued = False
        if self._part.withdrawn:
            return False
        self._part.sent = True
        self._timeout_ms = max(1, int((self._part.call.deadline - now) * 1000))
        return True

    def launch(self, frame_id: int, now: float) -> None:
        self.frame_id, self.sent_at = frame_id, now

    def message(self) -> Any:
        chunk, frame_format = self._part.chunk, self._part.call.frame_format
        message = frame_message(frame_format, chunk.members.names, chunk.starts.tobytes(), chunk.inputs, chunk.steps)
        message.frame_id, message.timeout_ms = self.frame_id, self._timeout_ms
        return message

    # ------------------------------------------------------------------------------------------ replies

    def deliver(self, reply: Any) -> None:
        call = self._part.call
        if (missing := missing_output(reply.outputs, call.frame_format.expected)) is not None:
            refuse_answered(self, reply, missing)
            return
        replies = reply_columns(reply, call.frame_format.expected, self.items, self._part.chunk.steps, call.single)
        if len(replies.items):
            self._sender.replied(self._part, replies)

    def refuse(self, item: int, error: CellkeeperError) -> None:
        if item >= self.items:
            raise unreadable(f"the server refused item {item} of a frame of {self.items}")
        self._sender.refused(self._part, item, error)

    def refuse_rest(self, error: CellkeeperError) -> None:
        self._sender.refused_rest(self._part, error)

    def lost(self, error: CellkeeperError, was_read: bool) -> None:
        self._sender.lost(self._part, error, was_read)


def frame_message(frame_format: FrameFormat, names: Sequence[str], positions: bytes, inputs: bytes, steps: int) -> Any:
    """Returns a StepFrame with one item of `steps` time steps for each of these sessions."""
    layout = frame_format.layout
    return pb.StepFrame(
        model=layout.model,
        sessions=names,
        steps=() if steps == 1 else (steps,) * len(names),
        **frame_fields(layout, inputs),
        positions=positions,  # every reply before these is held, so `acked` can be omitted
        outputs=frame_format.outputs,
    )


def reply_columns(reply: Any, names: Sequence[str], items: int, steps: int, single: bool) -> ReplyColumns:
    """Returns the items that succeeded, from a reply to a frame of `items` items of `steps` time steps each.

    names: of the expected outputs. single: the items were given without a time axis. Raises ServerError if the columns
    do not match, or lack one.
    """
    answered = np.frombuffer(reply.items, INDEX).astype(np.intp)
    count = len(answered)
    in_order = count <= items and bool((answered == np.arange(count)).all())  # the common case
    if not in_order and (int(answered.max()) >= items or len(np.unique(answered)) != count):
        raise unreadable(f"the server answered items {answered.tolist()} of a frame of {items}")
    if len(reply.positions) != POSITION_BYTES * count or not {steps}.issuperset(reply.steps):
        raise unreadable("the server sent columns of different lengths")
    outputs: dict[str, Array] = {}
    for message in as_requested(reply.outputs, names) if count else ():
        values = Column(message, count, count * steps).values
        if not message.per_item and not single:
            values = values.reshape(count, steps, *values.shape[1:])
        outputs[message.name] = values.copy()  # writable, and detached from the rest of the message
    flags = reply.flags if reply.flags.strip(b"\0") else b""
    return ReplyColumns(answered, reply.positions, outputs, flags, reply.queued_seconds, reply.computed_seconds)
