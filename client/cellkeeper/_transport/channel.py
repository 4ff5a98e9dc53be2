"""The gRPC channel to one endpoint, and how it is replaced when its connection is dead."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio
from cellkeeper_proto.v1.cellkeeper_pb2_grpc import CellkeeperStub

from .target import proxy_options

HEALTH = "/grpc.health.v1.Health/Check"

_OPTIONS = (
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", 64 << 20),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 5000),  # also the time limit of one attempt to connect
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.use_local_subchannel_pool", 1),
    # The client does its own retries. gRPC's have been seen to continue for ever while a server shut down: a call made
    # then used unbounded memory and blocked the event loop.
    ("grpc.enable_retries", 0),
)


class Channel:
    """A channel with one connection.

    A connection can die unnoticed: a firewall forgets it while it is idle, or the host at its other end loses power.
    The kernel then sends again for a quarter of an hour before it gives up. Pings would show it earlier, but servers
    end connections that ping while nothing else is sent. So what shows it here is that nothing was heard for as long as
    an attempt may take; then a new channel, with a new connection, takes the place of the old one.
    """

    def __init__(
        self,
        target: str,
        credentials: grpc.ChannelCredentials | None,
        options: tuple[tuple[str, str], ...],
        attempt_timeout: float,
    ) -> None:
        """attempt_timeout: seconds, the longest that a unary call on the channel may take."""
        self._target = target
        self._credentials = credentials
        self._options = (*_OPTIONS, *proxy_options(target), *options)
        self._attempt_timeout = attempt_timeout
        self._loop = asyncio.get_running_loop()
        self._heard_at = self._loop.time()
        self._old: set[asyncio.Task[None]] = set()
        self._open()

    def heard(self) -> None:
        """Something has come from the other end."""
        self._heard_at = self._loop.time()

    def unanswered(self, stub: CellkeeperStub, since: float) -> None:
        """Opens a new channel if nothing has been heard since then. Call it after `attempt_timeout` without an answer.

        stub: of the attempt; if another has noticed before, the channel is a new one already. since: on the event
        loop's clock.
        """
        if stub is not self.stub or self._heard_at > since:
            return
        # If it is alive after all, its unary calls are still answered. Their own deadlines pass in half of this time:
        # closing a channel cancels its calls, as if somebody had cancelled the tasks that wait for them.
        closing = self._loop.create_task(self._channel.close(2 * self._attempt_timeout))
        # It ends with the loop: asyncio need not warn about a program that ends without closing its client.
        closing._log_destroy_pending = False  # type: ignore[attr-defined]
        self._old.add(closing)
        closing.add_done_callback(self._old.discard)
        self._open()

    async def ready(self) -> None:
        """Waits until it is connected, if need be as the channel that takes the place of the present one."""
        while True:
            channel = self._channel
            try:
                await channel.channel_ready()
            except grpc.aio.UsageError:  # it is closed, and somebody waits for it
                if channel is self._channel:
                    raise
            if channel is self._channel:
                return

    async def close(self) -> None:
        for closing in self._old:
            closing.cancel()
        await asyncio.gather(self._channel.close(None), *self._old, return_exceptions=True)

    def _open(self) -> None:
        if self._credentials is None:
            self._channel = grpc.aio.insecure_channel(self._target, options=self._options)
        else:
            self._channel = grpc.aio.secure_channel(self._target, self._credentials, options=self._options)
        self.stub = CellkeeperStub(self._channel)  # type: ignore[no-untyped-call]
        self.health: Any = self._channel.unary_unary(HEALTH, None, None)  # takes and returns bytes
