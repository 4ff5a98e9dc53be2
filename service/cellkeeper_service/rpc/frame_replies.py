"""Replies to frames: what is ready goes out, so that a cold session does not hold up the hot ones."""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from cellkeeper_service.domain.meter import Meter
from cellkeeper_service.domain.spec import ModelSpec, TensorSpec
from cellkeeper_service.errors import Rejection, internal_error
from cellkeeper_service.scheduler.scheduler import Scheduler
from cellkeeper_service.sessions.cohort import Replies
from cellkeeper_service.sessions.requests import Step, StepReply

from . import fields, model_changed, tensors
from .frames import REPLY_ITEM_BYTES, Frame, second_items
from .status import to_error

log = logging.getLogger(__name__)

NONE: Mapping[int, Rejection] = {}


class FrameReplies:
    """Collects the replies to one frame's items, and gives them on in parts: `send` is called on the loop's thread,
    once for everything that became ready in one turn of the loop, and with `last` set the last time."""

    def __init__(self, frame_id: int, frame: Frame, send: Callable[[pb.StepFrameReply], None], whole: bool) -> None:
        """whole: one reply for everything instead of parts."""
        self._frame_id = frame_id
        self._frame = frame
        self._send = send
        self._whole = whole
        self._left = len(frame)
        self._ready: list[tuple[int, StepReply]] = []
        self._together: list[Replies] = []  # of items that went the short way
        self._errors: list[pb.ItemError] = []
        self._flushing = False
        self._requests: list[Step] = []
        self.gone = False
        self.arrivals: Sequence[float] = ()
        self.tenant, self.model = frame.catalog.tenant, frame.name
        self.sessions: Sequence[str] = frame.sessions
        self.positions, self.acked = frame.positions, frame.acked
        self.wanted, self.deadline = frame.outputs, frame.deadline
        self.values = tensors.in_model_dtype(frame.values, frame.spec) if frame.uniform else frame.values

    def submit(self, scheduler: Scheduler, meter: Meter, beyond: Mapping[int, Rejection] = NONE) -> None:
        """Puts every item into its session's line. Those that cannot be taken are counted here; what is refused
        later is counted where it is decided.

        beyond: items that are refused already, and why.
        """
        full = scheduler.refuse(len(self._frame), self._frame.deadline)
        if full is not None:
            self._answer_all(full)
            return
        items: Iterable[int] = range(len(self._frame))
        refused: Mapping[int, Rejection] = beyond
        if beyond:
            refused = {**beyond, **second_items(self._frame)}
        elif self._frame.uniform:
            items = scheduler.submit_columns(self)
        else:
            refused = second_items(self._frame)
        for item in items:
            why = refused.get(item)
            if why is None:
                try:
                    step = self.step(item)
                except Rejection as rejection:
                    self._ask(rejection, item, scheduler, meter)
                else:
                    scheduler.submit(step)
            if why is not None:
                meter.rejected(why.reason.value)
                self._done(item, why)

    def refuse_all(self, why: Rejection, meter: Meter) -> None:
        """Instead of `submit`: none of the items is taken."""
        for _ in range(len(self._frame)):
            meter.rejected(why.reason.value)
        self._answer_all(why)

    def step(self, item: int) -> Step:
        """The item as a request of its own. Raises a Rejection that is this item's alone."""
        step = self._frame.step(item, partial(self._done, item))
        self._requests.append(step)
        return step

    def fate(self, item: int) -> tuple[float, bool]:
        return self.deadline, self.gone

    def refuse(self, item: int, why: Rejection) -> None:
        self._done(item, why)

    def reply(self, replies: Replies) -> None:
        self._left -= len(replies.items)
        self._together.append(replies)
        self._flush_soon()

    def abandon(self) -> None:
        """Nobody reads the replies any more."""
        self.gone = True
        for request in self._requests:
            request.gone = True

    def _answer_all(self, why: Rejection) -> None:
        error = to_error(why)
        self._errors = [pb.ItemError(item=item, error=error) for item in range(len(self._frame))]
        self._left = 0
        self._flush()

    def _ask(self, refused: Rejection, item: int, scheduler: Scheduler, meter: Meter) -> None:
        """Refuses an item, with the reason that its session's record gives where that is another."""

        def done(reasons: list[Rejection]) -> None:
            meter.rejected(reasons[0].reason.value)
            self._done(item, reasons[0])

        frame = self._frame
        model_changed.ask(refused, scheduler, frame.catalog, frame.name, [frame.sessions[item]], frame.deadline, done)

    def _done(self, item: int, result: Any) -> None:
        self._left -= 1
        if isinstance(result, Rejection):
            self._errors.append(pb.ItemError(item=item, error=to_error(result)))
        else:
            self._ready.append((item, result))
        self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._flushing and (self._left == 0 or not self._whole):
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        ready, self._ready = self._ready, []
        errors, self._errors = self._errors, []
        together, self._together = self._together, []
        try:
            messages = self._messages(ready, together, errors)
        except Exception:
            log.exception("the replies to a frame's items could not be made together")
            messages = self._messages(*self._without_broken(ready, together, errors))
        for message in messages:
            self._send(message)

    def _messages(
        self, ready: list[tuple[int, StepReply]], together: list[Replies], errors: list[pb.ItemError]
    ) -> list[pb.StepFrameReply]:
        if len(together) == 1 and not ready and not errors:
            return [self._ordinary(together[0])]
        limit = self._frame.catalog.limits.max_message_bytes // 2
        parts = [ready] if self._whole else _split(ready, self._frame, limit)
        messages = [self._reply(part, [], [], False) for part in parts[:-1]]
        return [*messages, self._reply(parts[-1], together, errors, self._left == 0)]

    def _without_broken(
        self, ready: list[tuple[int, StepReply]], together: list[Replies], errors: list[pb.ItemError]
    ) -> tuple[list[tuple[int, StepReply]], list[Replies], list[pb.ItemError]]:
        """The same, with an error for each item of which no reply can be made."""
        whole = [one for one in ready if self._can_reply([one], [])]
        apart = [part for some in together for part in _apart(some)]
        fitting = [part for part in apart if self._can_reply([], [part])]
        answered = {item for item, _ in whole} | {item for part in fitting for item in part.items}
        items = [item for item, _ in ready] + [item for some in together for item in some.items]
        error = to_error(internal_error())
        broken = [pb.ItemError(item=item, error=error) for item in items if item not in answered]
        return whole, fitting, [*errors, *broken]

    def _can_reply(self, ready: list[tuple[int, StepReply]], together: list[Replies]) -> bool:
        try:
            self._reply(ready, together, [], False)
        except Exception:
            log.exception("the reply to an item of a frame could not be made")
            return False
        return True

    def _ordinary(self, some: Replies) -> pb.StepFrameReply:
        """What `_reply` gives for items of a uniform frame that became ready together, and nothing else."""
        count = len(some.items)
        return pb.StepFrameReply(
            frame_id=self._frame_id,
            items=struct.pack(f"<{count}I", *some.items),
            positions=b"".join(some.positions),
            outputs=[
                _column(output, some.outputs[output.name].tobytes())
                for output in self._frame.spec.outputs
                if output.name in self._frame.outputs
            ],
            flags=bytes(count),
            queued_seconds=some.queued_seconds,
            computed_seconds=some.computed_seconds,
            last=self._left == 0,
        )

    def _reply(
        self, ready: list[tuple[int, StepReply]], together: list[Replies], errors: list[pb.ItemError], last: bool
    ) -> pb.StepFrameReply:
        """together: items of a uniform frame; they stand behind those in `ready`."""
        replies = [reply for _, reply in ready]
        steps = [self._frame.steps[item] for item, _ in ready]
        items = [item for item, _ in ready] + [item for some in together for item in some.items]
        positions = [reply.position.pack() for reply in replies]
        positions += [position for some in together for position in some.positions]
        flags = bytes([reply.created + 2 * reply.replayed for reply in replies])
        times: list[StepReply | Replies] = [*replies, *together]
        return pb.StepFrameReply(
            frame_id=self._frame_id,
            items=np.array(items, "<u4").tobytes(),
            positions=b"".join(positions),
            steps=[] if all(count == 1 for count in steps) else steps,
            outputs=_columns(replies, together, self._frame),
            flags=flags + bytes(len(items) - len(flags)),
            errors=errors,
            queued_seconds=max((some.queued_seconds for some in times), default=0.0),
            computed_seconds=max((some.computed_seconds for some in times), default=0.0),
            last=last,
        )


def refused_items(frame_id: int, reasons: Sequence[Rejection], meter: Meter) -> pb.StepFrameReply:
    """The reply to a frame of which nothing is taken, with the reason for each item."""
    for why in reasons:
        meter.rejected(why.reason.value)
    errors = [pb.ItemError(item=item, error=to_error(why)) for item, why in enumerate(reasons)]
    return pb.StepFrameReply(frame_id=frame_id, errors=errors, last=True)


def _apart(some: Replies) -> list[Replies]:
    """Each item by itself; all of them as they are where their columns cannot be divided."""
    try:
        return [
            some._replace(
                items=[item],
                positions=some.positions[index : index + 1],
                outputs={name: column[index : index + 1] for name, column in some.outputs.items()},
            )
            for index, item in enumerate(some.items)
        ]
    except Exception:
        log.exception("the replies to a frame's items could not be divided")
        return [some]


def _split(ready: list[tuple[int, StepReply]], frame: Frame, limit: int) -> list[list[tuple[int, StepReply]]]:
    """Parts that each fit into a message."""
    per_step = sum(output.nbytes for output in frame.spec.outputs if output.name in frame.outputs)
    per_item = frame.spec.state_bytes if frame.with_state else 0
    parts: list[list[tuple[int, StepReply]]] = [[]]
    size = 0
    for item, reply in ready:
        width = per_step * frame.steps[item] + per_item + REPLY_ITEM_BYTES
        if parts[-1] and size + width > limit:
            parts.append([])
            size = 0
        parts[-1].append((item, reply))
        size += width
    return parts


def _columns(replies: list[StepReply], together: list[Replies], frame: Frame) -> list[pb.OutputColumn]:
    if not replies and not together:
        return []
    columns = []
    for output in frame.spec.outputs:
        if output.name in frame.outputs:
            parts = [reply.outputs[output.name] for reply in replies]
            parts += [some.outputs[output.name] for some in together]
            columns.append(_column(output, b"".join([part.tobytes() for part in parts])))
    if frame.with_state:
        columns += _state_columns(replies, frame.spec)
    return columns


def _column(output: TensorSpec, data: bytes) -> pb.OutputColumn:
    dtype = tensors.WIRE_DTYPES[output.dtype]
    return pb.OutputColumn(name=output.name, dtype=dtype, shape=output.shape, data=data)


def _state_columns(replies: list[StepReply], spec: ModelSpec) -> list[pb.OutputColumn]:
    columns = []
    split = [[data for _, data in tensors.split_state(reply.state or b"", spec)] for reply in replies]
    for index, state in enumerate(spec.states):
        columns.append(
            pb.OutputColumn(
                name=f"{fields.STATE_OUTPUT}.{state.name}",
                dtype=tensors.WIRE_DTYPES[state.dtype],
                shape=state.shape,
                per_item=True,
                data=b"".join([parts[index] for parts in split]),
            )
        )
    return columns
