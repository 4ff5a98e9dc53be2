"""Columns: the items of a StepFrame packed, and those of a StepFrameReply unpacked."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from ._chunk import Chunk
from ._errors import ServerError
from ._lane import Lane, Layout, StepCall
from ._position import POSITION_BYTES, Position
from ._reply import Array, StepReply
from ._wire import dtype_of

_REPLAYED = 2
_CREATED = 1
_STEP = struct.Struct("<Q")


@dataclass(slots=True)
class Flight:
    """A frame on its way. items[i] is None once it was answered."""

    frame_id: int
    sent_at: float
    items: list[tuple[Lane, Chunk] | None] = field(default_factory=list)
    heard: bool = False  # a reply came, maybe of a part of it

    def take(self, index: int) -> tuple[Lane, Chunk] | None:
        if index >= len(self.items):
            raise ServerError(f"the server answered item {index} of a frame of {len(self.items)}")
        item, self.items[index] = self.items[index], None
        return item

    def rest(self) -> list[tuple[Lane, Chunk]]:
        return [item for item in self.items if item is not None]


class FrameBuilder:
    """Collects the items of one frame."""

    def __init__(self) -> None:
        self.items: list[tuple[Lane, Chunk] | None] = []
        self.bytes = 0
        self.steps = 0
        self._counts: list[int] = []
        self._acked: list[bytes] = []

    def add(self, lane: Lane, chunk: Chunk, acked: int) -> None:
        self.items.append((lane, chunk))
        self._counts.append(chunk.steps)
        self._acked.append(_STEP.pack(acked))
        self.bytes += len(chunk.inputs) + POSITION_BYTES + 16
        self.steps += chunk.steps

    def message(self, frame_id: int, layout: Layout, outputs: tuple[str, ...], timeout_ms: int) -> Any:
        pairs = [item for item in self.items if item is not None]
        return pb.StepFrame(
            frame_id=frame_id,
            model=layout.model,
            sessions=[lane.session for lane, _ in pairs],
            steps=() if self.steps == len(pairs) else self._counts,
            dtype=layout.dtype,
            step_shape=layout.shape,
            inputs=b"".join([chunk.inputs for _, chunk in pairs]),
            positions=b"".join([chunk.start.pack() for _, chunk in pairs]),
            acked=b"".join(self._acked),
            outputs=outputs,
            timeout_ms=timeout_ms,
        )


class _Column:
    """One output of a reply frame, cut into items."""

    def __init__(self, message: Any, items: int, steps: int) -> None:
        self.name = str(message.name)
        self.per_item = bool(message.per_item)
        dtype, shape = dtype_of(message.dtype), tuple(message.shape)
        count = items if self.per_item else steps
        if len(message.data) != count * dtype.itemsize * prod(shape):
            raise ServerError(f"the server sent {len(message.data)} bytes in column {self.name!r}")
        raw: Array = np.frombuffer(message.data, dtype).reshape((count, *shape))
        self._values = raw

    def cut(self, index: int, first: int, steps: int, single: bool) -> Array:
        """The item's own, writable array."""
        values = self._values
        if self.per_item:
            part: Array = values[index]
        elif single:
            part = values[first]
        else:
            part = values[first : first + steps]
        return np.array(part, dtype=values.dtype.newbyteorder("="))


def replies(flight: Flight, reply: Any) -> Iterator[tuple[Lane, Chunk, StepReply]]:
    """The items of a reply frame that succeeded. Raises ServerError where its columns do not fit together."""
    indices = np.frombuffer(reply.items, "<u4").tolist()
    counts = list(reply.steps) or [1] * len(indices)
    if len(reply.positions) != POSITION_BYTES * len(indices) or len(counts) != len(indices):
        raise ServerError("the server sent columns of different lengths")
    columns = [_Column(message, len(indices), sum(counts)) for message in reply.outputs]
    flags, queued, computed = reply.flags, reply.queued_seconds, reply.computed_seconds
    first = 0
    for index, (item, steps) in enumerate(zip(indices, counts, strict=True)):
        found = flight.take(item)
        if found is not None:
            lane, chunk = found
            call: StepCall | None = chunk.tag
            flag = flags[index] if index < len(flags) else 0
            outputs: dict[str, Array] = {}
            if call is not None:
                single = call.single
                for column in columns:
                    outputs[column.name] = column.cut(index, first, steps, single)
            position = Position.unpack(reply.positions, POSITION_BYTES * index)
            created, replayed = bool(flag & _CREATED), bool(flag & _REPLAYED)
            yield lane, chunk, StepReply(outputs, position, created, replayed, queued, computed)
        first += steps
