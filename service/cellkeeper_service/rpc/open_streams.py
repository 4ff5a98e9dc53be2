"""The open streams of every service: how they begin, and how they end before the server stops."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from math import inf
from typing import Any

from cellkeeper_service.domain.meter import Meter
from cellkeeper_service.errors import Rejection, internal_error

from .authenticator import Authenticator
from .call_context import CallContext
from .call_log import abort
from .caller import Caller
from .half_sent import HalfSent
from .message_stream import MessageStream
from .unread import Unread
from .waiting import deadline

log = logging.getLogger(__name__)


class OpenStreams:
    def __init__(self, authenticator: Authenticator, meter: Meter, unread: Unread, half_sent: HalfSent) -> None:
        self._authenticator = authenticator
        self._meter = meter
        self._unread = unread
        self._half_sent = half_sent
        self._open: set[MessageStream[Any, Any]] = set()
        self.ending = False  # the server is stopping; no new stream begins
        self._none_open = asyncio.Event()
        self._none_open.set()

    async def end(self, patience_seconds: float) -> None:
        """Tells every stream that the server is stopping, and ends those still open after `patience_seconds`.

        No new stream begins.
        """
        self.ending = True
        for stream in list(self._open):
            stream.announce_end()
        try:
            await asyncio.wait_for(self._none_open.wait(), patience_seconds)
        except asyncio.TimeoutError:
            for stream in list(self._open):
                stream.finish()

    async def serve(
        self, rpc: str, context: CallContext, make: Callable[[Caller, float], MessageStream[Any, Any]]
    ) -> AsyncGenerator[list[Any], None]:
        """Yields the replies of one call as they become ready, from its authentication to its status.

        make: builds the stream for this caller. Its second argument is the call's deadline in seconds of the monotonic
        clock; infinity if it has none.
        """
        stream: MessageStream[Any, Any] | None = None
        try:
            caller = self._authenticator.enter(rpc, context)
            latest = inf
            if context.time_remaining() is not None:
                latest = deadline(context, caller.catalog.limits.default_timeout_ms)
            stream = make(caller, latest)
            if self.ending:  # the call came just before its connection learned of the shutdown
                stream.finish()
            self._open.add(stream)
            self._none_open.clear()
            with (
                self._authenticator.open_stream(caller, stream.finish),
                self._half_sent.counted(context.peer(), stream.finish, context.cancel) as counted,
            ):
                messages = self._unread.messages(context, counted.arrived)
                try:
                    async with aclosing(stream.replies(messages, self._authenticator.check)) as replies:
                        async for ready in replies:
                            yield ready
                finally:
                    await context.sent()  # until then it counts, so that it is cancelled if its client reads nothing
        except Rejection as rejection:
            self._meter.rejected(rejection.reason.value)
            # without the traceback, whose frames refer to it in a circle and keep the bytes of a message
            await abort(context, rejection.with_traceback(None), rpc)
        except Exception:
            log.exception("%s failed", rpc)
            await abort(context, internal_error(), rpc)
        finally:
            if stream is not None:
                self._open.discard(stream)
            if not self._open:
                self._none_open.set()
