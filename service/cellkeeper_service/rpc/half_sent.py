"""Bounds the bytes of frames that were begun and not finished.

gRPC buffers what has arrived of them, up to a whole message for each stream, and does not report it. So the bound is
computed from the bytes that the kernel has received on each connection.

The bound holds whenever the bytes are counted. Two kinds of bytes come on top, because gRPC's own threads receive them
before Python runs. One is what arrives until the next count, however long the machine takes to run it. The other is
what a stream had received behind a frame when that frame was read: up to the stream's HTTP/2 window, which is 64 KiB,
or more if gRPC finds the product of the connection's bandwidth and its round trip to be larger: many MiB within one
machine, so up to a whole message.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cellkeeper_service.errors import Reason, Rejection

from .received import Received

log = logging.getLogger(__name__)

SWEEP_SECONDS = 0.1
SWEEP_SHARE = 20
"""A sweep makes a system call for every connection. It is followed by a pause of this many times the processor time
that it took. The time on the clock would not do: on a busy machine, a sweep during which other processes run would
postpone the next one by seconds, when gRPC has received most."""
PATIENCE_SWEEPS = 3
"""How many sweeps an ended stream may take to answer what it has read. If its client does not read the replies, it
never finishes, so it is cancelled. Sweeps, not seconds: if the loop itself was late, the stream had no time to
answer."""
RETRY_DELAY_MS = 1000


class OpenStream:
    """A counted stream. finish, cancel: as in `HalfSent.counted`."""

    def __init__(self, finish: Callable[[Rejection], None], cancel: Callable[[], None]) -> None:
        self.finish = finish
        self.cancel = cancel
        self.since: int | None = None  # bytes of its connection before its last message arrived; None: not known yet
        self.has_moved = False
        self.is_ended = False  # it was told to end
        self.sweeps_since = 0  # how many found it after that

    def arrived(self) -> None:
        """Records that a whole message has arrived, so nothing before it is half-sent."""
        self.has_moved = True


class HalfSent:
    """Limits half-sent frames over all connections.

    What a connection received since a stream's last whole message is an upper bound on what gRPC buffers of that
    stream's next one, except for what had arrived when the last one was read. If the sum over the connections is too
    large, the connection with the most loses the stream that has waited longest. Other traffic of the connection counts
    too, so this may be a stream that is merely idle beside busy ones.
    """

    def __init__(self, most_bytes: int, message_bytes: int) -> None:
        """most_bytes: the limit for all connections together. message_bytes: the largest possible message."""
        self._most = most_bytes
        self._message = message_bytes
        self._received = Received()
        self._by_peer: dict[str, list[OpenStream]] = {}
        self._before: dict[str, int] = {}  # by peer, as of the last sweep
        self._sweeping: asyncio.TimerHandle | None = None
        if not self._received.is_known:
            log.warning("this system does not report the bytes received per connection: half-sent frames have no limit")

    @contextmanager
    def counted(
        self, peer: str, finish: Callable[[Rejection], None], cancel: Callable[[], None]
    ) -> Iterator[OpenStream]:
        """Counts the stream while it is open.

        finish: stops reading, answers what was read, and ends the stream with the given status. cancel: ends it at
        once; called if `finish` has not ended it.
        """
        stream = OpenStream(finish, cancel)
        self._by_peer.setdefault(peer, []).append(stream)
        if self._sweeping is None and self._received.is_known:
            self._sweep_in(SWEEP_SECONDS)
        try:
            yield stream
        finally:
            streams = self._by_peer[peer]
            streams.remove(stream)
            if not streams:
                del self._by_peer[peer]
                self._before.pop(peer, None)

    def _sweep_in(self, seconds: float) -> None:
        self._sweeping = asyncio.get_running_loop().call_later(seconds, self._sweep)

    def _sweep(self) -> None:
        self._sweeping = None
        if not self._by_peer:
            return
        began = time.thread_time()
        try:
            self._look_at_all()
        except Exception:
            log.exception("half-sent frames could not be checked; the next sweep tries again")
        self._sweep_in(max(SWEEP_SECONDS, SWEEP_SHARE * (time.thread_time() - began)))

    def _look_at_all(self) -> None:
        received = self._received.of(self._by_peer)
        for peer, count in received.items():
            self._look(self._by_peer[peer], count, self._before.get(peer))
        self._before = received
        self._cancel_those_that_do_not_end()
        self._end_those_too_many(received)

    def _cancel_those_that_do_not_end(self) -> None:
        for peer, streams in self._by_peer.items():
            for stream in streams:
                stream.sweeps_since += stream.is_ended
                if stream.sweeps_since == PATIENCE_SWEEPS:
                    log.warning("%s does not read the replies of a stream that was ended: cancelling it", peer)
                    stream.cancel()

    def _look(self, streams: list[OpenStream], count: int, before: int | None) -> None:
        if before is None:  # the connection is new here: all that came over it may belong to these streams
            before = max(count - len(streams) * self._message, 0)
        for stream in streams:
            if stream.has_moved or stream.since is None:
                stream.since, stream.has_moved = before, False

    def _end_those_too_many(self, received: dict[str, int]) -> None:
        waiting = {
            peer: sorted(
                (one.since, number) for number, one in enumerate(streams) if one.since is not None and not one.is_ended
            )
            for peer, streams in self._by_peer.items()
            if peer in received
        }
        spans = {peer: received[peer] - since[0][0] for peer, since in waiting.items() if since}
        total = sum(spans.values())
        while total > self._most:
            peer = max(spans, key=spans.__getitem__)
            _, number = waiting[peer].pop(0)
            self._end(self._by_peer[peer][number])
            left = received[peer] - waiting[peer][0][0] if waiting[peer] else 0
            total += left - spans[peer]
            spans[peer] = left

    def _end(self, stream: OpenStream) -> None:
        stream.is_ended = True
        text = (
            f"incomplete frames may hold more than {self._most} bytes, most of them on this connection; this stream "
            "has waited longest there"
        )
        stream.finish(Rejection(Reason.QUEUE_FULL, text, retry_delay_ms=RETRY_DELAY_MS))
