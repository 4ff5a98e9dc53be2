"""One endpoint: its channel, and the one StepStream that the steps of all sessions share.

What queues while frames are in flight goes out as the next frame. Few frames are in flight at once: that is what
makes frames large under load. A frame that waits for a cold session would hold up the others, so it ceases to count
once a part of it was answered, or after a short while.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
from cellkeeper_proto.v1.cellkeeper_pb2_grpc import CellkeeperStub

from ._errors import CellkeeperError, ServerError, Unavailable
from ._frames import Flight, FrameBuilder, replies
from ._lane import GroupKey, Lane
from ._reply import Counters
from ._retry import Backoff
from ._wire import error_of, from_grpc

FRAMES_IN_FLIGHT = 2
MOST_FRAMES_IN_FLIGHT = 48  # servers read 64 ahead by default
PATIENCE_SECONDS = 0.02
MAX_FRAME_BYTES = 1 << 20

_EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]  # the stubs lack it
_NONE = grpc.aio.Metadata()

# The stream was refused, not lost: sending the same again would end the same way.
_REFUSED = frozenset(
    {
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)
_OPTIONS = (
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", 64 << 20),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 5000),  # also how long one attempt to connect may take
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.use_local_subchannel_pool", 1),
)


class Endpoint:
    """See the module.

    down: its stream was lost and no connection stands yet. on_up: called when it is back.
    """

    def __init__(
        self,
        target: str,
        *,
        max_frame_items: int,
        default_timeout: float,
        attempt_timeout: float,
        backoff: Backoff,
        counters: Counters,
        credentials: grpc.ChannelCredentials | None,
        redispatch: Callable[[Endpoint, list[Lane]], None],
        on_up: Callable[[Endpoint], None],
    ) -> None:
        self.target = target
        self.down = False
        self.avoid_until = 0.0  # it is draining; on the event loop's clock
        self.max_frame_items = max_frame_items
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(target, options=_OPTIONS)
        else:
            self._channel = grpc.aio.secure_channel(target, credentials, options=_OPTIONS)
        self.stub = CellkeeperStub(self._channel)  # type: ignore[no-untyped-call]
        self._default_ms = int(default_timeout * 1000)
        self._attempt_timeout = attempt_timeout
        self._backoff = backoff
        self._counters = counters
        self._redispatch = redispatch
        self._on_up = on_up
        self._groups: dict[GroupKey, deque[Lane]] = {}
        self._flights: dict[int, Flight] = {}
        self._unheard = 0  # flights that nothing was heard of and that are young: these hold the next one back
        self._next_frame = 1
        self._failures = 0
        self._streams = 0
        self._last_heard = 0.0
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._closing = False
        self._task = self._loop.create_task(self._run())

    def enqueue(self, lane: Lane) -> None:
        """The lane has something to send, and sends it here."""
        key = lane.group(self._default_ms)
        if key is None:
            return
        lane.queued, lane.endpoint = True, self
        self._groups.setdefault(key, deque()).append(lane)
        self._wake.set()

    def drain(self) -> list[Lane]:
        """Takes the waiting lanes out."""
        lanes = [lane for group in self._groups.values() for lane in group]
        self._groups.clear()
        for lane in lanes:
            lane.queued = False
        return lanes

    async def close(self) -> None:
        self._closing = True
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._channel.close(None)

    # ------------------------------------------------------------------------------------------ the stream

    async def _run(self) -> None:
        while not self._closing:
            while not self._groups:
                self._wake.clear()
                await self._wake.wait()
            error = await self._one_stream()
            if self._closing:  # a cancelled reader ends with a result
                return
            self.down = isinstance(error, Unavailable)
            self._lost(error)
            if self.down:
                self._redispatch(self, self.drain())
                await self._reconnected()
                self.down = False
                self._on_up(self)

    async def _reconnected(self) -> None:
        while True:
            await asyncio.sleep(self._backoff.wait_seconds(self._failures))
            self._failures += 1
            try:
                await asyncio.wait_for(self._channel.channel_ready(), self._attempt_timeout)
            except asyncio.TimeoutError:
                continue
            return

    async def _one_stream(self) -> CellkeeperError:
        """Opens a stream and serves it until it breaks; why it did."""
        if self._streams:
            self._counters.stream_reconnects += 1
        self._streams += 1
        call = self.stub.StepStream()
        reader = self._loop.create_task(self._read(call))
        writer = self._loop.create_task(self._write(call))
        watch = self._loop.create_task(self._watch(call))
        try:
            error = await reader
        finally:
            # A write to a connection that never came about does not end with its call.
            writer.cancel()
            watch.cancel()
            call.cancel()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        await asyncio.wait([writer])
        if not writer.cancelled():
            writer.result()
        return error

    async def _write(self, call: Any) -> None:
        """Sends what queues, until the stream ends."""
        try:
            while True:
                self._wake.clear()
                while self._may_send():
                    frame = self._next_message()
                    if frame is not None:
                        await call.write(frame)
                await self._wake.wait()
        except (grpc.RpcError, grpc.aio.UsageError, asyncio.InvalidStateError):
            return  # the reader knows why

    async def _read(self, call: Any) -> CellkeeperError:
        """Hands out replies until the stream ends; why it did."""
        try:
            while True:
                reply = await call.read()
                if reply is _EOF:
                    code, details = await call.code(), await call.details()
                    if code is grpc.StatusCode.OK:
                        return Unavailable(f"{self.target} ended the stream", reason="LOST")
                    return _stream_error(grpc.aio.AioRpcError(code, _NONE, _NONE, details, None))
                self._handle(reply)
        except grpc.RpcError as error:
            return _stream_error(error)
        except (ServerError, ValueError) as error:  # columns that do not fit together
            return Unavailable(f"{self.target} sent what cannot be read: {error}", reason="LOST")
        except asyncio.CancelledError:
            if not call.cancelled():
                raise
            return Unavailable(f"{self.target} did not answer within {self._attempt_timeout:g} s", reason="LOST")

    async def _watch(self, call: Any) -> None:
        """Gives a stream up that is silent while frames wait."""
        while True:
            silent = self._loop.time() - self._last_heard if self._flights else 0.0
            if silent >= self._attempt_timeout:
                call.cancel()
                return
            await asyncio.sleep(self._attempt_timeout - silent)

    def _lost(self, error: CellkeeperError) -> None:
        flights, self._flights, self._unheard = self._flights, {}, 0
        for flight in flights.values():
            for lane, chunk in flight.rest():
                lane.refused(chunk, error)

    # ------------------------------------------------------------------------------------------ sending

    def _may_send(self) -> bool:
        if not self._groups or len(self._flights) >= MOST_FRAMES_IN_FLIGHT:
            return False
        if self._unheard < FRAMES_IN_FLIGHT:
            return True
        if self._timer is None:
            self._timer = self._loop.call_later(PATIENCE_SECONDS, self._out_of_patience)
        return False

    def _out_of_patience(self) -> None:
        self._timer = None
        limit = self._loop.time() - PATIENCE_SECONDS * 0.9
        for flight in self._flights.values():
            if not flight.heard and flight.sent_at <= limit:
                flight.heard = True
                self._unheard -= 1
        self._wake.set()

    def _next_message(self) -> Any:
        """The next frame, now in flight; None where its lanes had nothing to send any more."""
        key = next(iter(self._groups))
        group = self._groups.pop(key)
        frame, taken, late = FrameBuilder(), set[str](), deque[Lane]()
        now, left = self._loop.time(), float("inf")
        again: list[Lane] = []
        while group and len(frame.items) < self.max_frame_items and frame.bytes < MAX_FRAME_BYTES:
            lane = group.popleft()
            if lane.session in taken:  # a second session object of the same name
                late.append(lane)
                continue
            lane.queued = False
            if lane.outputs_wanted != key[1]:  # what it was queued for is gone
                again.append(lane)
                continue
            outgoing = lane.take()
            if outgoing is None:
                continue
            taken.add(lane.session)
            chunk = outgoing.chunk
            if chunk.tag is not None:
                left = min(left, chunk.tag.deadline - now)
            frame.add(lane, chunk, outgoing.acked)
            again.append(lane)
        late.extend(group)
        if late:
            self._groups[key] = late
        for lane in again:
            lane.go_on()
        if not frame.items:
            return None
        counters, frame_id = self._counters, self._next_frame
        self._next_frame += 1
        self._flights[frame_id] = Flight(frame_id, now, frame.items)
        if len(self._flights) == 1:
            self._last_heard = now
        self._unheard += 1
        counters.frames_sent += 1
        counters.chunks_sent += len(frame.items)
        counters.steps_sent += frame.steps
        timeout_ms = self._default_ms if left == float("inf") else max(1, int(left * 1000))
        return frame.message(frame_id, key[0], key[1], timeout_ms)

    # ------------------------------------------------------------------------------------------ replies

    def _handle(self, reply: Any) -> None:
        flight = self._flights.get(reply.frame_id)
        if flight is None:
            return
        self._last_heard = self._loop.time()
        self._failures = 0
        if not flight.heard:
            flight.heard = True
            self._unheard -= 1
        if self._groups:
            self._wake.set()
        if reply.HasField("frame_error"):
            del self._flights[reply.frame_id]
            error = error_of(reply.frame_error)
            for lane, chunk in flight.rest():
                lane.refused(chunk, error)
            return
        for lane, chunk, answer in replies(flight, reply):
            lane.replied(chunk, answer)
        for item in reply.errors:
            found = flight.take(item.item)
            if found is not None:
                error = error_of(item.error)
                if error.reason == "DRAINING":
                    self.avoid_until = self._last_heard + max(1.0, error.retry_delay_ms / 1000)
                found[0].refused(found[1], error)
        if reply.last:
            del self._flights[reply.frame_id]
            for lane, chunk in flight.rest():
                lane.refused(chunk, Unavailable("the server left the step unanswered", reason="LOST"))


def _stream_error(error: grpc.RpcError) -> CellkeeperError:
    """Lost, whatever the status was, unless the server refused the stream as such."""
    found = from_grpc(error)
    if isinstance(error, grpc.aio.AioRpcError) and error.code() in _REFUSED:
        return found
    return Unavailable(found.message, reason="LOST", retry_delay_ms=found.retry_delay_ms)
