"""Packs items into the columns of a StepFrame, and unpacks those of a StepFrameReply."""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from .._session.chunk import Chunk
from .._session.frame_format import CREATED, REPLAYED, FrameFormat
from .._session.session_sender import SessionSender
from .._session.step_call import StepCall
from ..errors import CellkeeperError
from ..position import LAYOUT, POSITION_BYTES, Position
from ..types import Array, Model, StepReply
from .inflight_frames import InflightFrame
from .requests import frame_fields
from .wire import as_requested, dtype_of, missing_output, unreadable

_logger = logging.getLogger("cellkeeper")

INDEX = np.dtype("<u4")
MAX_FRAME_BYTES = 1 << 20  # of a frame's items
_REST_BYTES = 4096  # of everything else in a frame
_UNEVEN = "the server sent columns of different lengths"


def frame_bytes(model: Model) -> int:
    """Returns how many bytes the items of one frame take at most. An item that has more by itself is sent alone."""
    return min(MAX_FRAME_BYTES, model.max_message_bytes - _REST_BYTES) if model.max_message_bytes else MAX_FRAME_BYTES


def item_bytes(input_bytes: int, name: str) -> int:
    """Returns the bytes of an item in a frame, or somewhat more: a character takes up to four."""
    return input_bytes + 48 + 4 * len(name)


def most_items(limit: int, max_bytes: int, input_bytes: int, names: Sequence[str]) -> int:
    """Returns how many of these sessions fit into one frame. limit, max_bytes: of its items. input_bytes: of each."""
    return max(1, min(limit, max_bytes // item_bytes(input_bytes, max(names, key=len, default=""))))


@dataclass(slots=True, eq=False, repr=False)
class Frame:
    """Items of sessions, all of one format, first taken from a queue, then in flight. See InflightFrame.

    Item i is chunks[i] of senders[i]; chunks[i] is None once it is answered.
    """

    frame_format: FrameFormat
    senders: list[SessionSender] = field(default_factory=list)
    chunks: list[Chunk | None] = field(default_factory=list)
    timeout_ms: int = 0
    frame_id: int = 0
    sent_at: float = 0.0
    heard: bool = False
    unanswered: int = 0

    @property
    def items(self) -> int:
        return len(self.chunks)

    @property
    def steps(self) -> int:
        return sum([chunk.steps for chunk in self.chunks if chunk is not None])

    def launch(self, frame_id: int, now: float) -> None:
        self.frame_id, self.sent_at, self.unanswered = frame_id, now, len(self.chunks)

    def message(self) -> Any:
        layout, chunks = self.frame_format.layout, [chunk for chunk in self.chunks if chunk is not None]
        counts = [chunk.steps for chunk in chunks]
        pack = LAYOUT.pack
        return pb.StepFrame(
            frame_id=self.frame_id,
            model=layout.model,
            sessions=[sender.session for sender in self.senders],
            steps=() if counts.count(1) == len(counts) else counts,
            **frame_fields(layout, b"".join([chunk.inputs for chunk in chunks])),
            positions=b"".join([pack(*chunk.start) for chunk in chunks]),
            acked=struct.pack(f"<{len(chunks)}Q", *[chunk.acked_sent for chunk in chunks]),
            outputs=self.frame_format.outputs,
            timeout_ms=self.timeout_ms,
        )

    def deliver(self, reply: Any) -> None:
        if (missing := missing_output(reply.outputs, self.frame_format.expected)) is not None:
            refuse_answered(self, reply, missing)
            return
        for sender, chunk, answer in replies(self, reply):
            sender.replied(chunk, answer)

    def refuse(self, item: int, error: CellkeeperError) -> None:
        if item >= len(self.chunks):
            raise unreadable(f"the server refused item {item} of a frame of {len(self.chunks)}")
        chunk, self.chunks[item] = self.chunks[item], None
        if chunk is not None:
            self.senders[item].refused(chunk, error)

    def refuse_rest(self, error: CellkeeperError) -> None:
        self._end_rest(SessionSender.refused, error)

    def lost(self, error: CellkeeperError, was_read: bool) -> None:
        self._end_rest(SessionSender.lost if was_read else SessionSender.not_read, error)

    def _end_rest(self, tell: Callable[[SessionSender, Chunk, CellkeeperError], None], error: CellkeeperError) -> None:
        for sender, chunk in zip(self.senders, self.chunks, strict=True):
            if chunk is None:
                continue
            try:
                tell(sender, chunk, error)
            except Exception:  # one session's failure must not keep the others from being told
                _logger.exception("a lost step of session %r could not be handled", sender.session)


class Column:
    """One output of a reply frame, to be cut into items."""

    __slots__ = ("name", "per_item", "scalar", "values")

    def __init__(self, message: Any, items: int, steps: int) -> None:
        self.name: str = message.name
        self.per_item: bool = message.per_item
        dtype, shape, data = dtype_of(message.dtype), tuple(message.shape), message.data
        count = items if self.per_item else steps
        if len(data) != count * dtype.itemsize * prod(shape):
            raise unreadable(f"the server sent {len(data)} bytes in column {self.name!r}")
        raw: Array = np.frombuffer(data, dtype)
        if not dtype.isnative:
            raw = raw.astype(dtype.newbyteorder("="))
        self.values: Array = raw.reshape((count, *shape)) if shape else raw
        self.scalar = not shape

    def rows(self) -> list[Array]:
        """Returns all rows at once, as `cut` does one by one, if every item is a single time step."""
        if self.scalar:
            return [np.array(value) for value in self.values]
        return [row.copy() for row in self.values]

    def cut(self, index: int, first: int, steps: int, single: bool) -> Array:
        """Returns the item's own, writable array, copied so that keeping it does not keep the whole frame."""
        if self.per_item:
            first = index
        elif not single:
            return self.values[first : first + steps].copy()
        return np.array(self.values[first]) if self.scalar else self.values[first].copy()


def refuse_answered(sent: InflightFrame, reply: Any, error: CellkeeperError) -> None:
    """Fails the items that a reply frame answers, since it lacks an output. Each error has the item's position.

    The position says that the server applied the item. Raises ServerError if the columns do not match.
    """
    for item, position in zip(*_answered(reply), strict=True):
        own = copy(error)
        own.position = Position(*position)
        sent.refuse(item, own)


def _answered(reply: Any) -> tuple[list[int], list[tuple[bytes, int, bytes]]]:
    """Returns the items that a reply frame answers, and the positions after them."""
    items = np.frombuffer(reply.items, INDEX).tolist()
    positions = list(LAYOUT.iter_unpack(reply.positions)) if len(reply.positions) % POSITION_BYTES == 0 else []
    if len(positions) != len(items):
        raise unreadable(_UNEVEN)
    return items, positions


def replies(sent: Frame, reply: Any) -> Iterator[tuple[SessionSender, Chunk, StepReply]]:
    """Yields the items of a reply frame that succeeded. Raises ServerError if its columns do not match."""
    indices, positions = _answered(reply)
    counts = list(reply.steps) or [1] * len(indices)
    if len(counts) != len(indices):
        raise unreadable(_UNEVEN)
    senders, chunks = sent.senders, sent.chunks
    if indices and max(indices) >= len(chunks):
        raise unreadable(f"the server answered item {max(indices)} of a frame of {len(chunks)}")
    messages = as_requested(reply.outputs, sent.frame_format.expected)
    columns = [Column(message, len(indices), sum(counts)) for message in messages]
    rows = [] if reply.steps else [(column.name, column.rows()) for column in columns]
    flags = reply.flags if reply.flags.strip(b"\0") else b""
    queued, computed = reply.queued_seconds, reply.computed_seconds
    created = replayed = False
    first = 0
    for index, (item, steps, position) in enumerate(zip(indices, counts, positions, strict=True)):
        chunk = chunks[item]
        if chunk is not None:
            chunks[item] = None
            call: StepCall | None = chunk.call
            outputs: dict[str, Array] = {}
            if call is not None:
                single = call.single
                if single and rows:
                    for name, values in rows:
                        outputs[name] = values[index]
                else:
                    for column in columns:
                        outputs[column.name] = column.cut(index, first, steps, single)
            if flags:
                flag = flags[index] if index < len(flags) else 0
                created, replayed = bool(flag & CREATED), bool(flag & REPLAYED)
            where = chunk.end if position == chunk.end else Position(*position)
            yield senders[item], chunk, StepReply(outputs, where, created, replayed, queued, computed)
        first += steps
