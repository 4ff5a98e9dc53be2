"""Replies to frames, sent in parts so that a cold session does not hold up the hot ones."""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Callable, Mapping, Sequence

from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from cellkeeper_service.core.loop import CoreLoop
from cellkeeper_service.core.outputs import gather
from cellkeeper_service.core.requests import Step
from cellkeeper_service.domain.meter import Meter
from cellkeeper_service.domain.spec import ModelSpec
from cellkeeper_service.errors import Rejection, internal_error

from . import fields, model_changed, tensors
from .frames import REPLY_ITEM_BYTES, Frame, repeated_items
from .status import to_error

log = logging.getLogger(__name__)

NONE: Mapping[int, Rejection] = {}


class FrameReplies:
    """Collects the replies to one frame's items and passes them on in parts.

    Calls `send` on the loop's thread, once for everything that became ready in one turn of the loop. The final part has
    `last` set.
    """

    def __init__(self, frame_id: int, frame: Frame, send: Callable[[pb.StepFrameReply], None], whole: bool) -> None:
        """whole: send one reply for the whole frame instead of parts."""
        self._frame_id = frame_id
        self._frame = frame
        self._send = send
        self._whole = whole
        self._left = len(frame)
        self._steps: list[Step] = []
        self._ready: list[Step] = []
        self._errors: list[pb.ItemError] = []
        self._flushing = False

    def submit(self, core: CoreLoop, meter: Meter, over_quota: Mapping[int, Rejection] = NONE) -> None:
        """Submits a step for every item.

        Items rejected here are counted here; the core counts those that it rejects later.

        over_quota: the items that the tenant's quota refuses, with the reason.
        """
        frame, done, steps = self._frame, self._done, self._steps
        full = core.refuse(len(frame), frame.deadline)
        if full is not None:
            error = to_error(full)
            self._errors = [pb.ItemError(item=item, error=error) for item in range(len(frame))]
            self._left = 0
            self._flush()
            return
        if frame.checked and frame.distinct and not over_quota:
            self._steps = frame.all_steps(done)
            core.submit_alike(self._steps)
            return
        refused = {**over_quota, **repeated_items(frame)}
        for item, why in refused.items():
            meter.rejected(why.reason.value)
            self._refuse(item, why)
        for item in range(len(frame)):
            if item in refused:
                continue
            try:
                steps.append(frame.step(item, done))
            except Rejection as rejection:
                self._ask(rejection, item, core, meter)
        core.submit_many(steps)

    def abandon(self) -> None:
        """Called when nobody reads the replies any more."""
        for step in self._steps:
            step.gone = True

    def _ask(self, refused: Rejection, item: int, core: CoreLoop, meter: Meter) -> None:
        """Refuses an item with `refused`, or with a better reason from its session's record (see model_changed.ask)."""

        def done(reasons: list[Rejection]) -> None:
            meter.rejected(reasons[0].reason.value)
            self._refuse(item, reasons[0])

        frame = self._frame
        model_changed.ask(refused, core, frame.catalog, frame.name, [frame.sessions[item]], frame.deadline, done)

    def _refuse(self, item: int, why: Rejection) -> None:
        self._left -= 1
        try:
            error = to_error(why)
        except Exception:
            log.exception("the error of a frame's item could not be built")
            error = to_error(internal_error())
        self._errors.append(pb.ItemError(item=item, error=error))
        self._flush_soon()

    def _done(self, steps: Sequence[Step]) -> None:
        ready = [step for step in steps if step.result is None]
        self._left -= len(ready)
        self._ready += ready
        if len(ready) < len(steps):
            for step in steps:
                if step.result is not None:
                    self._refuse(step.item, step.result)
        self._flush_soon()

    def _flush_soon(self) -> None:
        if self._left == 0:
            self._flush()
        elif not self._flushing and not self._whole:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush_part)

    def _flush_part(self) -> None:
        if self._flushing:  # otherwise the last part has been sent already, with this one
            self._flush()

    def _flush(self) -> None:
        self._flushing = False
        ready, self._ready = self._ready, []
        errors, self._errors = self._errors, []
        try:
            messages = self._messages(ready, errors)
        except Exception:
            log.exception("the replies to a frame's items could not be built together")
            messages = self._messages(*self._without_broken(ready, errors))
        send = self._send
        if self._left == 0:  # break reference cycles, which only the collector would find
            self._steps, self._send = [], _nowhere
        for message in messages:
            send(message)

    def _messages(self, ready: list[Step], errors: list[pb.ItemError]) -> list[pb.StepFrameReply]:
        limit = self._frame.catalog.limits.max_message_bytes // 2
        parts = [ready] if self._whole else _split(ready, self._frame, limit)
        if errors and not self._whole and _bytes(parts[-1], self._frame) > limit:
            parts.append([])  # one item's outputs may fill a message
        messages = [self._reply(part, [], False) for part in parts[:-1]]
        return [*messages, self._reply(parts[-1], errors, self._left == 0)]

    def _without_broken(self, ready: list[Step], errors: list[pb.ItemError]) -> tuple[list[Step], list[pb.ItemError]]:
        """Returns both lists, with an internal error in place of each item whose reply cannot be built."""
        fitting, broken = [], []
        for step in ready:
            try:
                self._reply([step], [], False)
                fitting.append(step)
            except Exception:  # noqa: PERF203 - each item fails on its own
                log.exception("the reply to an item of a frame could not be built")
                broken.append(pb.ItemError(item=step.item, error=to_error(internal_error())))
        return fitting, [*errors, *broken]

    def _reply(self, ready: list[Step], errors: list[pb.ItemError], last: bool) -> pb.StepFrameReply:
        counts = [step.steps for step in ready]
        return pb.StepFrameReply(
            frame_id=self._frame_id,
            items=struct.pack(f"<{len(ready)}I", *[step.item for step in ready]),
            positions=b"".join([step.after for step in ready if step.after is not None]),
            steps=[] if counts.count(1) == len(counts) else counts,
            outputs=_columns(ready, self._frame),
            flags=bytes([step.created + 2 * step.replayed for step in ready]),
            errors=errors,
            queued_seconds=max([0.0, *[step.started_at - step.arrived for step in ready]]),
            computed_seconds=max([0.0, *[step.computed_at - step.started_at for step in ready]]),
            last=last,
        )


def _nowhere(message: pb.StepFrameReply) -> None:
    """Replaces `send` after the last reply."""


def refused_items(frame_id: int, reasons: Sequence[Rejection], meter: Meter) -> pb.StepFrameReply:
    """Returns the reply to a frame of which no item is accepted, with one reason for each item."""
    for why in reasons:
        meter.rejected(why.reason.value)
    written = {why: to_error(why) for why in set(reasons)}  # often one for all items
    errors = [pb.ItemError(item=item, error=written[why]) for item, why in enumerate(reasons)]
    return pb.StepFrameReply(frame_id=frame_id, errors=errors, last=True)


def _split(ready: list[Step], frame: Frame, limit: int) -> list[list[Step]]:
    """Splits the steps into parts that each fit into one message."""
    if _bytes(ready, frame) <= limit:
        return [ready]
    parts: list[list[Step]] = [[]]
    size = 0
    for step in ready:
        width = _bytes([step], frame)
        if parts[-1] and size + width > limit:
            parts.append([])
            size = 0
        parts[-1].append(step)
        size += width
    return parts


def _bytes(ready: list[Step], frame: Frame) -> int:
    """Returns at least the bytes of the steps' replies."""
    per_step = sum(output.nbytes for output in frame.spec.outputs if output.name in frame.outputs)
    per_item = frame.spec.state_bytes if frame.with_state else 0
    return per_step * sum([step.steps for step in ready]) + (per_item + REPLY_ITEM_BYTES) * len(ready)


def _columns(ready: list[Step], frame: Frame) -> list[pb.OutputColumn]:
    if not ready:
        return []
    pieces = [step.pieces for step in ready]
    columns = [
        pb.OutputColumn(
            name=output.name,
            dtype=tensors.WIRE_DTYPES[output.dtype],
            shape=output.shape,
            data=gather(pieces, output.name),
        )
        for output in frame.spec.outputs
        if output.name in frame.outputs
    ]
    if frame.with_state:
        columns += _state_columns(ready, frame.spec)
    return columns


def _state_columns(ready: list[Step], spec: ModelSpec) -> list[pb.OutputColumn]:
    columns = []
    split = [[data for _, data in tensors.split_state(step.end_state or b"", spec)] for step in ready]
    for index, state in enumerate(spec.states):
        columns.append(
            pb.OutputColumn(
                name=fields.STATE_PREFIX + state.name,
                dtype=tensors.WIRE_DTYPES[state.dtype],
                shape=state.shape,
                per_item=True,
                data=b"".join([parts[index] for parts in split]),
            )
        )
    return columns
