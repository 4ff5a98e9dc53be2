"""StepStream: frames in, parts of replies out, as they become ready."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable

from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from cellkeeper_service.core.loop import CoreLoop
from cellkeeper_service.domain.meter import Meter
from cellkeeper_service.errors import Reason, Rejection, internal_error

from . import model_changed
from .caller import Caller
from .charges import Charge
from .decoding import Malformed
from .frame_replies import FrameReplies, refused_items
from .frames import read_frame
from .status import to_error

log = logging.getLogger(__name__)


class Stream:
    """One open stream. Frames are submitted in the order of their arrival, so that order is kept within a session."""

    def __init__(
        self,
        caller: Caller,
        core: CoreLoop,
        meter: Meter,
        latest: float | None,
        check: Callable[[Caller], None],
    ) -> None:
        """latest: the call's deadline, in seconds of the monotonic clock, where it has one. check: raises a Rejection
        where the caller may not go on."""
        self._caller = caller
        self._check = check
        self._core = core
        self._meter = meter
        self._latest = latest
        self._out: asyncio.Queue[pb.StepFrameReply | Rejection | None] = asyncio.Queue()
        self._open: set[FrameReplies] = set()
        self._reader: asyncio.Task[None] | None = None
        self._room = asyncio.Semaphore(caller.catalog.limits.max_stream_frames)
        self._ended = False
        self._finishing = False
        self._why: Rejection | None = None
        self._asking = 0  # frames that were refused, and whose sessions' records are looked at

    def announce_end(self) -> None:
        """Asks the client to send no more frames. What it has sent is answered, and the stream ends with its half."""
        why = Rejection(Reason.DRAINING, "the server is shutting down; send no more on this stream", retry_delay_ms=100)
        self._out.put_nowait(pb.StepFrameReply(frame_error=to_error(why)))

    def finish(self, why: Rejection | None = None) -> None:
        """Reads no further frames, where the client would not end: the stream ends once those that were read are
        answered, with this status. Of the others nothing was applied."""
        self._finishing = self._ended = True
        self._why = why
        if self._reader is not None:
            self._reader.cancel()
            self._end_if_answered()

    async def replies(self, frames: AsyncIterator[pb.StepFrame | Malformed]) -> AsyncGenerator[pb.StepFrameReply, None]:
        """Ends when every frame is answered. Raises a Rejection, after the answers to the frames before it, for bytes
        that are no frame: without a frame_id there is nothing else that could be answered."""
        if self._finishing:
            return
        reader = self._reader = asyncio.get_running_loop().create_task(self._read(frames))
        try:
            while (reply := await self._out.get()) is not None:
                if isinstance(reply, Rejection):
                    raise reply
                yield reply
                if reply.last:  # it has left: a client that does not read its replies cannot make more of them
                    self._room.release()
            if not self._finishing:
                await reader
        finally:
            reader.cancel()
            for replies in self._open:
                replies.abandon()

    def end(self, why: Rejection) -> None:
        """Ends the stream with that status; what is under way is not waited for."""
        self._out.put_nowait(why)

    async def _read(self, frames: AsyncIterator[pb.StepFrame | Malformed]) -> None:
        try:
            async for message in frames:
                if isinstance(message, Malformed):
                    raise message.rejection()
                await self._room.acquire()
                self._check(self._caller)
                self._submit(message)
        finally:
            self._ended = True
            self._end_if_answered()

    def _submit(self, message: pb.StepFrame) -> None:
        self._meter.frame("in", len(message.sessions))
        try:
            frame = read_frame(message, self._caller.catalog, latest=self._latest, needs_positions=not message.peek)
        except Rejection as rejection:
            self._refuse(message, rejection)
            return
        except Exception:
            log.exception("a frame could not be read")
            error = to_error(internal_error())
            self._out.put_nowait(pb.StepFrameReply(frame_id=message.frame_id, frame_error=error, last=True))
            return

        charge: Charge | None = None
        over: Rejection | None = None
        try:
            charge = self._caller.charge(message)
        except Rejection as rejection:
            over = rejection

        def send(reply: pb.StepFrameReply) -> None:
            self._meter.frame("out", len(reply.items) // 4 + len(reply.errors))
            self._out.put_nowait(reply)
            if reply.last:
                self._caller.release(charge)
                self._open.discard(replies)
                self._end_if_answered()

        replies = FrameReplies(message.frame_id, frame, send, whole=False)
        self._open.add(replies)
        if over is not None:
            replies.refuse_all(over, self._meter)
        else:
            replies.submit(self._core, self._meter, charge.refused if charge else {})

    def _refuse(self, message: pb.StepFrame, refused: Rejection) -> None:
        charge: Charge | None = None

        def done(reasons: list[Rejection]) -> None:
            self._caller.release(charge)
            self._asking -= 1
            if set(reasons) <= {refused}:
                self._meter.rejected(refused.reason.value)
                reply = pb.StepFrameReply(frame_id=message.frame_id, frame_error=to_error(refused), last=True)
            else:
                reply = refused_items(message.frame_id, reasons, self._meter)
            self._out.put_nowait(reply)
            self._end_if_answered()

        self._asking += 1
        try:
            charge = self._caller.charge(message)
        except Rejection:
            done([])
            return
        catalog = self._caller.catalog
        until = time.monotonic() + catalog.limits.default_timeout_ms / 1000
        until = until if self._latest is None else min(until, self._latest)
        model_changed.ask(refused, self._core, catalog, message.model, message.sessions, until, done)

    def _end_if_answered(self) -> None:
        if self._ended and not self._open and not self._asking:
            self._out.put_nowait(self._why)
