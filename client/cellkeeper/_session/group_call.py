"""A step that a caller asked of a group, from its submission to the answers of all members."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import numpy as np

from ..errors import CellkeeperError
from ..late_step import LateStep
from ..position import POSITION_BYTES, Position
from ..types import Array, GroupReply, StepReply
from .chunk import Chunk
from .frame_format import CREATED, REPLAYED, FrameFormat
from .group_history import GroupChunk, Members, Rows
from .retry import EndpointStatus
from .session_sender import SessionSender
from .step_call import StepCall


@dataclass(slots=True)
class ReplyColumns:
    """The replies to some items of a frame, in columns.

    items: [k]. positions: packed, after the items. outputs: [k, ...] each, as the caller gets them. flags: one byte
    per item, or empty, as on the wire. queued_seconds, computed_seconds: the maximum over all.
    """

    items: Rows
    positions: bytes
    outputs: dict[str, Array]
    flags: bytes
    queued_seconds: float
    computed_seconds: float

    def take(self, chosen: Rows) -> ReplyColumns:
        positions = np.frombuffer(self.positions, np.uint8).reshape(-1, POSITION_BYTES)[chosen].tobytes()
        outputs = {name: values[chosen] for name, values in self.outputs.items()}
        flags = bytes(self.flags[at] for at in chosen.tolist()) if self.flags else b""
        return ReplyColumns(self.items[chosen], positions, outputs, flags, self.queued_seconds, self.computed_seconds)

    def one(self, at: int) -> StepReply:
        """Returns the reply at that index in the form of a session's."""
        flag = self.flags[at] if self.flags else 0
        return StepReply(
            {name: np.array(values[at]) for name, values in self.outputs.items()},
            Position.unpack(self.positions, at * POSITION_BYTES),
            bool(flag & CREATED),
            bool(flag & REPLAYED),
            self.queued_seconds,
            self.computed_seconds,
        )


@dataclass(slots=True, eq=False, repr=False)
class GroupPart:
    """The part of a call that goes to one endpoint as one frame.

    items: the call's items, in the chunk's order. endpoint: where it goes, or went. alone: by item of the chunk, the
    sender and chunk of each member that left the columns while it was in flight. sent: it is or was in flight.
    withdrawn: it will not be sent.
    """

    call: GroupCall
    chunk: GroupChunk
    items: Rows
    endpoint: EndpointStatus | None
    alone: dict[int, tuple[SessionSender, Chunk]] = field(default_factory=dict)
    sent: bool = False
    withdrawn: bool = False


@dataclass(eq=False, repr=False)
class GroupCall:
    """members: those to step. inputs: raw, item by item. single: given without a time axis. timeout: seconds. deadline:
    on the event loop's clock. answer: receives the GroupReply once every member has a reply or an error.

    parts: the items that are sent in columns. alone: by item, the sender and the call of each member that left the
    columns. errors: by item.
    """

    members: Members
    inputs: bytes
    single: bool
    frame_format: FrameFormat
    timeout: float
    deadline: float
    answer: asyncio.Future[GroupReply]
    parts: list[GroupPart] = field(default_factory=list)
    alone: dict[int, tuple[SessionSender, StepCall]] = field(default_factory=dict)
    errors: dict[int, CellkeeperError] = field(default_factory=dict)
    late_steps: dict[str, tuple[LateStep, ...]] = field(default_factory=dict)
    done: bool = False

    def __post_init__(self) -> None:
        self._left = len(self.members)
        self._outputs: dict[str, Array] = {}
        self._positions = np.zeros((self._left, POSITION_BYTES), np.uint8)
        self._flags = bytearray(self._left)
        self._queued_seconds = self._computed_seconds = 0.0

    def inputs_of(self, items: Rows) -> bytes:
        if len(items) == len(self.members):
            return self.inputs
        table = np.frombuffer(self.inputs, np.uint8).reshape(len(self.members), -1)
        return table[items].tobytes()

    def take(self, items: Rows, replies: ReplyColumns) -> None:
        """Records the replies to some of the items."""
        count = len(self.members)
        whole = len(items) == count and bool((items == np.arange(count)).all())
        for name, values in replies.outputs.items():
            if whole:
                self._outputs[name] = values
            else:
                self._column(name, values)[items] = values
        self._positions[items] = np.frombuffer(replies.positions, np.uint8).reshape(-1, POSITION_BYTES)
        for item, flag in zip(items.tolist(), replies.flags, strict=False):
            self._flags[item] = flag
        self._seconds(replies.queued_seconds, replies.computed_seconds)
        self._count(len(items))

    def take_one(self, item: int, reply: StepReply) -> None:
        """Records the reply to a member that left the columns."""
        for name, value in reply.outputs.items():
            self._column(name, value[None])[item] = value
        self._positions[item] = np.frombuffer(reply.position.pack(), np.uint8)
        self._flags[item] = CREATED * reply.created | REPLAYED * reply.replayed
        if reply.late_steps:
            self.late_steps[self.members.names[item]] = reply.late_steps
        self._seconds(reply.queued_seconds, reply.computed_seconds)
        self._count(1)

    def fail(self, item: int, error: CellkeeperError) -> None:
        self.errors[item] = error
        self._count(1)

    def fail_all(self, error: CellkeeperError) -> None:
        """Fails every item that has not failed yet; call it only if nothing was sent."""
        for item in range(len(self.members)):
            self.errors.setdefault(item, error)
        self._count(self._left)

    def reply(self) -> GroupReply:
        """Returns what succeeded, once every member has an answer."""
        names = self.members.names
        if not self.errors:
            ids, outputs, positions, flags = tuple(names), self._outputs, self._positions.tobytes(), bytes(self._flags)
        else:
            items = np.array([item for item in range(len(names)) if item not in self.errors], np.intp)
            ids = tuple(names[item] for item in items.tolist())
            outputs = {name: values[items] for name, values in self._outputs.items()}
            positions, flags = self._positions[items].tobytes(), bytes(self._flags[item] for item in items.tolist())
        errors = {names[item]: error for item, error in sorted(self.errors.items())}
        return GroupReply(
            ids,
            outputs,
            errors,
            self.late_steps,
            self._queued_seconds,
            self._computed_seconds,
            packed_positions=positions,
            flags=flags,
        )

    # ------------------------------------------------------------------------------------------ inside

    def _column(self, name: str, values: Array) -> Array:
        column = self._outputs.get(name)
        if column is None:
            column = self._outputs[name] = np.zeros((len(self.members), *values.shape[1:]), values.dtype)
        return column

    def _seconds(self, queued: float, computed: float) -> None:
        self._queued_seconds = max(self._queued_seconds, queued)
        self._computed_seconds = max(self._computed_seconds, computed)

    def _count(self, items: int) -> None:
        self._left -= items
        if self._left == 0 and not self.done:
            self.done = True
            if not self.answer.done():
                self.answer.set_result(self.reply())


class MemberAnswer:
    """Receives the reply to one member of a call that has left the columns. See Answer."""

    __slots__ = ("_call", "_done", "_item")

    def __init__(self, call: GroupCall, item: int) -> None:
        self._call = call
        self._item = item
        self._done = False

    def done(self) -> bool:
        return self._done

    def set_result(self, result: StepReply, /) -> None:
        self._done = True
        self._call.take_one(self._item, result)

    def set_exception(self, exception: CellkeeperError, /) -> None:
        self._done = True
        self._call.fail(self._item, exception)

    def exception(self) -> None:
        return None
