"""One StepStream, from opening to loss: sends frames and reads replies."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import CellkeeperError, QueueFull, ServerError, Unavailable
from ..types import Counters
from .frame_codec import INDEX
from .inflight_frames import InflightFrame, InflightFrames
from .item_window import ItemWindow
from .send_queue import SendQueue
from .stream_call import CallEnded, StreamCall
from .wire import error_of

_logger = logging.getLogger("cellkeeper")

_ONE_SESSION = "session"
"""The field of a QueueFull if only this session's queue is full, and the server has room for others."""

_LAST_WRITE_SECONDS = 0.5  # for gRPC to report the last write, once the stream has ended

_ENDING_SECONDS = 10.0  # until a server that is shutting down is tried again, unless it is known to be back earlier


class Stream:
    """One stream of frames to an endpoint.

    send_queue: the senders that wait. on_heard: called when a reply arrives. on_draining: called when the server shuts
    down, with the seconds for which to avoid it.
    """

    def __init__(
        self,
        target: str,
        send_queue: SendQueue,
        *,
        attempt_timeout: float,
        counters: Counters,
        on_heard: Callable[[], None],
        on_draining: Callable[[float], None],
    ) -> None:
        self._target = target
        self._send_queue = send_queue
        self._window = ItemWindow()
        self._attempt_timeout = attempt_timeout
        self._counters = counters
        self._on_heard = on_heard
        self._on_draining = on_draining
        self._loop = asyncio.get_running_loop()
        self._inflight = InflightFrames(self._loop, self.wake)
        self._last_heard = 0.0
        self._next_frame = 1
        self._ending = False  # no more frames are sent
        self.silent_since: float | None = None  # when the last reply arrived, if it was ended because none followed
        self.answered = False  # something has been received
        self._was_refused = False  # so that no frame in flight was read
        self._sleeper: asyncio.Future[None] | None = None  # the writer's, while it is idle

    @property
    def refusal(self) -> CellkeeperError | None:
        """Why steps are held back; None while they are not."""
        return self._window.refusal

    def wake(self) -> None:
        """Wakes the writer, as there may be something to send."""
        sleeper = self._sleeper
        if sleeper is not None:
            self._sleeper = None
            if not sleeper.done():
                sleeper.set_result(None)

    def finish(self) -> None:
        """Stops sending; the server ends the stream once it has answered what was sent."""
        self._ending = True
        self.wake()

    async def serve(self, call: StreamCall) -> CellkeeperError:
        """Serves the stream until it ends. Returns the reason."""
        reader = self._loop.create_task(self._read(call))
        writer = self._loop.create_task(self._write(call))
        watch = self._loop.create_task(self._watch(call))
        try:
            # Not `await reader`: if every task of the loop is cancelled at once, the reader ends with a result, which
            # would end this wait instead of its own cancellation.
            await asyncio.wait([reader, writer], return_when=asyncio.FIRST_COMPLETED)
            if not _has_failed(writer):  # it also ends after the call has ended; the reader knows why
                await asyncio.wait([reader], timeout=self._attempt_timeout)
                if not reader.done():  # the server does not end the stream
                    call.cancel()
                    await asyncio.wait([reader])
            if self._ending:
                # On a busy machine gRPC may report the end of the stream before that of the last write. If the event
                # loop is closed between the two, gRPC has nobody to report the latter to.
                await asyncio.wait([writer], timeout=_LAST_WRITE_SECONDS)
        finally:
            call.cancel()
            # A write to a connection that was never established does not end with its call.
            for task in (reader, writer, watch):
                task.cancel()
            await asyncio.wait([reader, writer, watch])
        for task in (writer, reader):
            if _has_failed(task):
                _logger.error("the stream to %s failed in the client", self._target, exc_info=task.exception())
                text = (
                    f"the client failed to send steps to {self._target}, or to read their replies: {task.exception()!r}"
                )
                return CellkeeperError(text, reason="INTERNAL_ERROR")
        return reader.result()

    def lost(self, error: CellkeeperError) -> None:
        """Fails every chunk in flight with `error`: no reply will arrive."""
        for sent in self._inflight.take_all():
            sent.lost(error, was_read=not self._was_refused)

    # ------------------------------------------------------------------------------------------ inside

    async def _write(self, call: StreamCall) -> None:
        """Sends what is queued until the stream ends, or until it has told the server that no more frames follow."""
        send_queue, inflight, window = self._send_queue, self._inflight, self._window
        try:
            while True:
                while send_queue and inflight.room() and window.room >= 1 and not self._ending:
                    message = self._next_message()
                    if message is not None:
                        await call.write(message)
                if self._ending:
                    await call.done_writing()
                    return
                self._sleeper = self._loop.create_future()
                await self._sleeper
        except CallEnded:
            return  # the reader knows why

    def _next_message(self) -> Any:
        """Returns the next frame and marks it as in flight; None if its senders have nothing left to send."""
        now = self._loop.time()
        waiting, room = len(self._send_queue), self._window.room
        items = min(self._send_queue.max_items, self._inflight.share(waiting), room)
        least_seconds = self._window.least_seconds if room < waiting else 0.0
        frame = self._send_queue.next_frame(now, int(items), least_seconds)
        if frame is None:
            return None
        if not self._inflight:
            self._last_heard = now
        counters = self._counters
        frame.launch(self._next_frame, now)
        self._next_frame += 1
        self._inflight.add(frame)
        self._window.sent(frame.items)
        counters.frames_sent += 1
        counters.chunks_sent += frame.items
        counters.steps_sent += frame.steps
        return frame.message()

    async def _read(self, call: StreamCall) -> CellkeeperError:
        """Delivers replies until the stream ends. Returns the reason."""
        try:
            await call.deliver(self._handle)
        except CallEnded as ended:
            if self.silent_since is None:
                self._was_refused = ended.is_refusal
                return ended.error
            return Unavailable(f"{self._target} did not answer within {self._attempt_timeout:g} s", reason="LOST")
        except (ServerError, ValueError) as error:  # columns that do not match
            return Unavailable(f"{self._target} sent a reply that cannot be read: {error}", reason="LOST")

    async def _watch(self, call: StreamCall) -> None:
        """Cancels the stream if no reply arrives for attempt_timeout while frames are in flight."""
        while True:
            silent = self._loop.time() - self._last_heard if self._inflight else 0.0
            if silent >= self._attempt_timeout:
                self.silent_since = self._last_heard
                call.cancel()
                return
            await asyncio.sleep(self._attempt_timeout - silent)

    def _handle(self, reply: Any) -> None:
        self.answered = True
        sent = self._inflight.heard(reply.frame_id)
        if sent is None:
            if not reply.frame_id and reply.HasField("frame_error"):
                self.finish()
                self._on_draining(_ENDING_SECONDS)
            return
        self._on_heard()
        self._last_heard = self._loop.time()  # not before what the channel has noted
        if self._send_queue:
            self.wake()
        if reply.HasField("frame_error"):
            self._end_frame(sent, error_of(reply.frame_error))
            return
        applied = len(reply.items) // INDEX.itemsize
        sent.unanswered -= applied
        if applied:
            self._window.applied(applied, self._last_heard - sent.sent_at)
        sent.deliver(reply)
        if reply.errors:
            self._refused(sent, reply.errors)
        if reply.last:
            self._end_frame(sent, Unavailable("the server left the step unanswered", reason="LOST"))

    def _refused(self, sent: InflightFrame, refusals: Any) -> None:
        errors = [(refused.item, error_of(refused.error)) for refused in refusals]
        self._end(sent, [error for _, error in errors])
        for item, error in errors:
            if error.reason == "DRAINING":
                self._on_draining(max(1.0, error.retry_delay_ms / 1000))
            sent.refuse(item, error)

    def _end_frame(self, sent: InflightFrame, error: CellkeeperError) -> None:
        """Ends the frame: its items without an answer fail with `error`."""
        self._inflight.remove(sent)
        self._end(sent, [error] * sent.unanswered)
        sent.refuse_rest(error)

    def _end(self, sent: InflightFrame, errors: Sequence[CellkeeperError]) -> None:
        """Counts items of the frame that ended with these errors."""
        full = [error for error in errors if isinstance(error, QueueFull) and error.field != _ONE_SESSION]
        sent.unanswered -= len(errors)
        self._window.ended(len(errors) - len(full))
        if full:
            self._window.refused(len(full), full[-1], sent.sent_at, self._loop.time())


def _has_failed(task: asyncio.Task[Any]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is not None
