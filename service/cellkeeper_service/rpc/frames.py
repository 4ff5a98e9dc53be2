"""Frames: one chunk for each of many sessions, in columns."""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from operator import le

import numpy as np
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from cellkeeper_service.core.requests import Done, Step
from cellkeeper_service.domain.engine import Array
from cellkeeper_service.domain.position import POSITION_BYTES, Position
from cellkeeper_service.domain.record import SessionKey
from cellkeeper_service.domain.spec import ModelSpec
from cellkeeper_service.errors import Reason, Rejection, invalid

from . import chunk_inputs, fields, tensors
from .catalog import Catalog

ABSENT = bytes(POSITION_BYTES)
REPLY_ITEM_BYTES = 64  # per item of a reply, besides its outputs
_STEP = struct.Struct("<16xQ8x")  # of a packed position


@dataclass(slots=True, eq=False)
class Frame:
    """A frame whose columns are consistent. Errors of a single item are raised when `step` takes that item out."""

    catalog: Catalog
    name: str
    spec: ModelSpec
    sessions: list[str]
    steps: list[int]
    starts: Sequence[int]  # index of each item's first time step in `values`
    values: Array  # [sum of steps, *input shape]
    valid: bool  # the model accepts every value
    data: bytes  # `values` in the model's dtype, raw; heads are computed on these bytes
    positions: bytes
    acked: Sequence[int]
    needs_positions: bool
    peek: bool
    outputs: frozenset[str]
    with_state: bool
    deadline: float
    distinct: bool  # no session occurs twice
    checked: bool  # the columns as a whole show that every item is valid

    def __len__(self) -> int:
        return len(self.sessions)

    def step(self, item: int, done: Done) -> Step:
        """Returns the item's step. Raises a Rejection that concerns this item alone."""
        if not self.checked:
            self._check(item)
        steps, start, width = self.steps[item], self.starts[item], self.spec.step_bytes
        return Step(
            SessionKey(self.catalog.tenant, self.name, self.sessions[item]),
            self.deadline,
            done,
            self.data[start * width : (start + steps) * width],
            steps,
            self._position(item),
            self.acked[item] if self.acked else None,
            self.peek,
            self.outputs,
            self.with_state,
            None,
            item,
        )

    def all_steps(self, done: Done) -> list[Step]:
        """Returns every item's step, for a checked frame. Equals calling `step` for each, without the checks."""
        deadline, data, width, peek, outputs = self.deadline, self.data, self.spec.step_bytes, self.peek, self.outputs
        keys = SessionKey.of_each(self.catalog.tenant, self.name, self.sessions)
        inputs = [data[at : at + width] for at in range(0, len(data), width)]
        acks: Sequence[int | None] = self.acked or [None] * len(self)
        items = zip(keys, inputs, Position.unpack_all(self.positions), acks, range(len(self)), strict=True)
        return [
            Step(key, deadline, done, given, 1, position, acked, peek, outputs, False, None, item)
            for key, given, position, acked, item in items
        ]

    def _position(self, item: int) -> Position | None:
        if not self.positions:
            return None
        position = Position.unpack(self.positions, POSITION_BYTES * item)
        return None if position == ABSENT else position

    def _check(self, item: int) -> None:
        steps, start, position = self.steps[item], self.starts[item], self._position(item)
        self.catalog.check_steps(steps, self.spec, f"steps[{item}]")
        fields.session_id(self.sessions[item], f"sessions[{item}]")
        if position is None and self.needs_positions:
            raise invalid(f"positions[{item}]", "none", "the item's position, which every step of a stream needs")
        if position is not None:
            fields.step(position.step, f"positions[{item}].step")
        if self.acked:
            fields.acked(self.acked[item], position, f"acked[{item}]")
        if not self.valid:
            field = chunk_inputs.FIELD if self.spec.inputs else "inputs"
            tensors.check_values(self.values[start : start + steps], self.spec, field)
        self.catalog.check_reply_size(steps, self.outputs, self.with_state, self.spec)


def read_frame(message: pb.StepFrame, catalog: Catalog, *, latest: float, needs_positions: bool) -> Frame:
    """Reads the frame's columns. Raises a Rejection of the whole frame if they are inconsistent.

    latest: the call's own deadline, in seconds of the monotonic clock; infinity if it has none.
    """
    name, _ = catalog.find(message.model)
    spec = catalog.spec(name)
    count, limit = len(message.sessions), catalog.limits.max_frame_items
    if not 1 <= count <= limit:
        raise invalid("sessions", f"{count} items", f"1 to {limit} items in one frame")
    if len(message.steps) not in (0, count):
        raise invalid("steps", f"{len(message.steps)} entries", f"none, or one for each of {count} sessions")
    # copied once, by slices: protobuf's containers otherwise return their items one by one
    sessions, steps, positions = message.sessions[:], message.steps[:], message.positions
    singles = not steps
    steps = steps or [1] * count
    _check_column("positions", positions, POSITION_BYTES, count)
    _check_column("acked", message.acked, 8, count)
    acked = struct.unpack(f"<{count}Q", message.acked) if message.acked else ()
    outputs, with_state = catalog.wanted(message.outputs, spec)
    total = count if singles else sum(steps)
    values = chunk_inputs.read_columns(message, total, spec)
    starts = range(count) if singles else np.cumsum([0, *steps[:-1]]).tolist()
    deadline = time.monotonic() + (message.timeout_ms or catalog.limits.default_timeout_ms) / 1000
    if latest < deadline:
        deadline = latest
    valid = tensors.all_valid(values, spec)
    catalog.check_reply_size(1, outputs, False, spec)
    return Frame(
        catalog=catalog,
        name=name,
        spec=spec,
        sessions=sessions,
        steps=steps,
        starts=starts,
        values=values,
        valid=valid,
        data=tensors.input_bytes(values, spec),
        positions=positions,
        acked=acked,
        needs_positions=needs_positions,
        peek=message.peek,
        outputs=outputs,
        with_state=with_state,
        deadline=deadline,
        distinct=len(set(sessions)) == count,
        checked=singles and valid and not with_state and _cannot_be_wrong(sessions, positions, acked),
    )


def repeated_items(frame: Frame) -> dict[int, Rejection]:
    """Returns a Rejection for each item whose session occurs earlier in the frame."""
    if frame.distinct:
        return {}
    seen: set[str] = set()
    refused = {}
    for item, session in enumerate(frame.sessions):
        if session in seen:
            text = f"sessions[{item}]: got {session!r} again, expected each session once in a frame"
            refused[item] = Rejection(Reason.DUPLICATE_SESSION, text, field=f"sessions[{item}]")
        seen.add(session)
    return refused


def _cannot_be_wrong(sessions: Sequence[str], positions: bytes, acked: Sequence[int]) -> bool:
    """Returns True if the columns show at a glance that every item is valid.

    That is, each has an id and a position, and acknowledges nothing after that position. False means that each item has
    to be checked.
    """
    lengths = list(map(len, sessions))
    if not 0 < min(lengths) <= max(lengths) <= fields.PLAIN_SESSION_LENGTH:
        return False
    if not positions or ABSENT in positions or max(positions[23::POSITION_BYTES]) > 127:  # the high byte of the step
        return False
    if not acked:  # as in the frames of groups
        return True
    steps = [step for (step,) in _STEP.iter_unpack(positions)]
    return all(map(le, acked, steps))


def _check_column(field: str, column: bytes, width: int, count: int) -> None:
    if column and len(column) != width * count:
        raise invalid(field, f"{len(column)} bytes", f"none, or {width} bytes for each of {count} sessions")
