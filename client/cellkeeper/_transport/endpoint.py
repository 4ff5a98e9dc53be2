"""One endpoint: its channel, and the one stream of frames that the steps of all sessions share.

Whatever queues up while frames are in flight goes out in the next frame.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from .._session.time_limit import within
from ..errors import CellkeeperError, Unavailable
from ..types import Counters
from .channel import Channel
from .credentials import Metadata
from .send_queue import Sendable, SendQueue
from .settings import ClientSettings
from .stream import Stream
from .stream_call import GrpcCall, StreamCall, UnopenedCall

_logger = logging.getLogger("cellkeeper")

_END_SECONDS = 0.5  # for the server to end a stream when the client closes


class Endpoint:
    """One endpoint of a client; see the module.

    down: its stream was lost and it is not connected again yet. last_error: why its last stream ended; None once it
    answers again. on_up: called when it is back.
    """

    def __init__(self, target: str, settings: ClientSettings, counters: Counters, on_up: Callable[[], None]) -> None:
        self.target = target
        self.down = False
        self.avoid_until = 0.0  # it is draining until then, on the event loop's clock
        self.last_error: CellkeeperError | None = None
        self.channel = Channel(target, settings.credentials, settings.channel_options, settings.attempt_timeout)
        self._token = settings.token
        self._websocket = settings.websocket_of(target)
        self._attempt_timeout = settings.attempt_timeout
        self._backoff = settings.backoff
        self._counters = counters
        self._on_up = on_up
        self._failures = 0
        self.send_queue = SendQueue(settings.timeout, settings.max_frame_items)
        self._loop = asyncio.get_running_loop()
        self._stream: Stream | None = None
        self._something = asyncio.Event()  # set when the queue gets an item while there is no stream
        self._streams = 0  # opened so far
        self._closing = False
        self._task = self._loop.create_task(self._run())
        # The task ends with the loop: asyncio need not warn about a program that ends without closing its client.
        self._task._log_destroy_pending = False  # type: ignore[attr-defined]

    @property
    def refusal(self) -> CellkeeperError | None:
        """Why steps are held back; None while they are not."""
        return None if self._stream is None else self._stream.refusal

    def enqueue(self, sender: Sendable) -> None:
        """Queues a sender, or a group's frame, to be sent to this endpoint."""
        sender.endpoint = self
        if self.send_queue.add(sender):  # otherwise the writer is already awake, or waits for room
            if self._stream is not None:
                self._stream.wake()
            else:
                self._something.set()

    def draining(self, seconds: float) -> None:
        """Avoids this endpoint for that long, because its server is shutting down."""
        self.avoid_until = self._loop.time() + seconds
        self.reroute()

    def reroute(self) -> None:
        """Empties the queue; what was in it chooses an endpoint anew."""
        for sender in self.send_queue.drain():
            sender.go_on()

    async def close(self) -> None:
        """Ends its stream and its channel.

        It asks the server to end the stream first: a cancelled stream keeps gRPC busy a little longer, when the loop
        may already be closed.
        """
        self._closing = True
        if self._stream is not None and self._stream.answered:
            self._stream.finish()
            await asyncio.wait([self._task], timeout=_END_SECONDS)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.channel.close()

    def abandon(self) -> None:
        """Ends it without waiting; its channel is freed with the last reference."""
        self._closing = True
        self._task.cancel()

    # ------------------------------------------------------------------------------------------ inside

    async def _run(self) -> None:
        """Serves one stream after another, each once a step waits, and goes on after an unexpected failure.

        Otherwise a session that waits for this endpoint would wait for ever.
        """
        while not self._closing:
            try:
                await self._one_stream()
            except Exception as failure:  # noqa: PERF203 - each stream fails on its own
                _logger.exception("the connection to %s failed in the client; reconnecting", self.target)
                text = f"the connection to {self.target} failed in the client: {failure!r}"
                self.last_error = Unavailable(text, reason="LOST")
                if self._stream is not None:
                    self._stream.lost(self.last_error)
                self._stream, self.down = None, False
                self._failures += 1
                await asyncio.sleep(self._backoff.wait_seconds(self._failures))

    async def _one_stream(self) -> None:
        while not self.send_queue:
            self._something.clear()
            await self._something.wait()
        if self._streams:
            self._counters.stream_reconnects += 1
        self._streams += 1
        self._stream = stream = Stream(
            self.target,
            self.send_queue,
            attempt_timeout=self._attempt_timeout,
            counters=self._counters,
            on_heard=self._heard,
            on_draining=self.draining,
        )
        stub = self.channel.stub
        error = await self._serve(stream)
        if self._closing:
            return
        self.down = isinstance(error, Unavailable)
        self.last_error = error
        self._stream = None
        if stream.silent_since is not None:
            self.channel.unanswered(stub, stream.silent_since)
        stream.lost(error)
        if self.down:
            self.reroute()
            await self._reconnected()
            self.down, self.avoid_until = False, 0.0
            self._on_up()

    async def _serve(self, stream: Stream) -> CellkeeperError:
        """Serves the stream until it ends. Returns the reason.

        If its token has been replaced meanwhile, the stream counts as lost: the next one sends the new token.
        """
        try:
            sent = self._token.metadata()
        except CellkeeperError as no_token:
            return await stream.serve(UnopenedCall(no_token))
        error = await stream.serve(self._call(sent))
        if self._token.replaced(sent, error):
            return Unavailable(error.message, reason="LOST")
        return error

    def _call(self, metadata: Metadata) -> StreamCall:
        if self._websocket is None:
            return GrpcCall(self.channel.stub.StepStream(metadata=metadata), self.target)
        from .websocket_call import WebSocketCall  # an optional dependency

        return WebSocketCall(self._websocket, metadata)

    async def _reconnected(self) -> None:
        while True:
            await asyncio.sleep(self._backoff.wait_seconds(self._failures))
            self._failures += 1
            try:
                await within(self._attempt_timeout, self.channel.ready())
            except asyncio.TimeoutError:
                continue
            return

    def _heard(self) -> None:
        self.channel.heard()
        self._failures = 0
        self.last_error = None
