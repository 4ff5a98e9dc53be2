"""A gRPC call in flight, from its arrival to its status."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import Any, NoReturn

import grpc

from cellkeeper_service.errors import Rejection

from . import grpc_core
from .call_context import EOF
from .completion_queue import CompletionQueue
from .method import Method
from .status import CODES, DETAILS_KEY, to_status

log = logging.getLogger(__name__)


REFUSAL_SECONDS = 0.01
"""A stream is refused no sooner than this after its call came. If the status comes while a client of grpc.aio sends its
first message, most of them report INTERNAL ("Internal error from Core") in place of it."""


class Aborted(Exception):
    """Ends the call with the status that `GrpcCall.abort` was given."""


class GrpcCall:
    """Implements CallContext. task: answers the call; gone once it is cancelled."""

    __slots__ = (
        "_call",
        "_code",
        "_deadline",
        "_details",
        "_has_sent",
        "_is_over",
        "_is_sending",
        "_loop",
        "_metadata",
        "_method",
        "_peer",
        "_queue",
        "_trailing",
        "_writer",
        "task",
    )

    def __init__(self, accepted: grpc_core.Event, method: Method, queue: CompletionQueue) -> None:
        """accepted: the event that brought the call. Must be created on the event loop."""
        self._call = accepted.call
        self._deadline = grpc_core.deadline_of(accepted)
        self._metadata: Sequence[tuple[str, str | bytes]] = accepted.invocation_metadata
        self._method = method
        self._queue = queue
        self._loop = asyncio.get_running_loop()
        self._peer = ""
        self._code: grpc.StatusCode | None = None
        self._details = ""
        self._trailing: Sequence[tuple[str, str | bytes]] = ()
        self._has_sent = self._is_sending = self._is_over = False
        self._writer: asyncio.Future[None] | None = None  # waits until a message has been sent
        grpc_core.receive_close(self._call, grpc_core.Quiet(self._closed, self._cancel))
        self.task = self._loop.create_task(self._answer())

    def invocation_metadata(self) -> Sequence[tuple[str, str | bytes]]:
        return self._metadata

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        return grpc_core.names_of_peer(self._call)

    def time_remaining(self) -> float | None:
        return None if self._deadline is None else max(self._deadline - time.time(), 0.0)

    def peer(self) -> str:
        if not self._peer:
            self._peer = self._call.peer().decode()
        return self._peer

    def code(self) -> grpc.StatusCode | None:
        """Returns the status that the call was aborted with, or None."""
        return self._code

    async def read(self) -> Any:
        future: asyncio.Future[bytes | None] = self._loop.create_future()

        def arrived(event: grpc_core.Event) -> None:
            if not future.done():
                future.set_result(grpc_core.message_of(event))

        grpc_core.receive_message(self._call, arrived)
        data = await future
        return EOF if data is None else self._method.decode(data)

    async def write(self, reply: Any, *, more: bool = False) -> None:
        """Sends a reply of a stream, once the one before it is on its way. more: the next one follows at once."""
        data = self._method.encode(reply)
        await self.sent()
        self._is_sending = True
        tag = grpc_core.Quiet(self._was_sent, self._tell_writer)
        grpc_core.send_message(self._call, data, tag, first=not self._has_sent, more=more)
        self._has_sent = True

    async def sent(self) -> None:
        while self._is_sending:
            self._queue.take_more()
            self._writer = self._loop.create_future()
            if self._is_sending:  # looked at after `_writer` is there, because `_was_sent` runs on any thread
                await self._writer
            self._writer = None

    def cancel(self) -> None:
        grpc_core.cancel(self._call, grpc.StatusCode.CANCELLED, "the server has cancelled the call")

    async def refuse(self, why: Rejection) -> NoReturn:
        status = to_status(why)
        await self.abort(CODES[why.reason], status.message, ((DETAILS_KEY, status.SerializeToString()),))

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Sequence[tuple[str, str | bytes]] = ()
    ) -> NoReturn:
        """Ends the call with this status, by raising an exception. As in grpc.aio, whose health service calls it."""
        self._code, self._details, self._trailing = code, details, trailing_metadata
        raise Aborted(code, details)

    async def _answer(self) -> None:
        data = None
        try:
            if self._method.streams:
                await self._stream()
            else:
                data = self._method.encode(await self._method.answer(self))
            self._end(grpc.StatusCode.OK, data=data)
        except Aborted:
            if self._method.streams and not self._has_sent:
                await asyncio.sleep(REFUSAL_SECONDS)
            self._end(self._code or grpc.StatusCode.UNKNOWN, self._details, self._trailing)
        except asyncio.CancelledError:
            self._end(grpc.StatusCode.CANCELLED)
        except Exception:
            log.exception("a call failed")
            self._end(grpc.StatusCode.INTERNAL, "internal error")

    async def _stream(self) -> None:
        try:
            replies = self._method.answer(self)
            if inspect.iscoroutine(replies):
                await replies
                return
            async with aclosing(replies):
                async for ready in replies:
                    for left, reply in zip(range(len(ready) - 1, -1, -1), ready, strict=True):
                        await self.write(reply, more=left > 0)
        finally:
            await self.sent()

    def _end(
        self,
        code: grpc.StatusCode,
        details: str = "",
        trailing: Sequence[tuple[str, str | bytes]] = (),
        data: bytes | None = None,
    ) -> None:
        if self._is_over:
            return
        try:
            grpc_core.send_status(self._call, code, details, trailing, first=not self._has_sent, data=data)
        except Exception:
            log.exception("a call's status could not be sent")
            # or its client would wait for a status that never comes
            grpc_core.cancel(self._call, grpc.StatusCode.INTERNAL, "internal error")

    def _was_sent(self, event: grpc_core.Event) -> bool:
        self._is_sending = False
        return self._writer is None

    def _tell_writer(self, event: grpc_core.Event) -> None:
        if self._is_sending:  # the next message already: its own event tells whoever waits for it
            return
        if self._writer is not None and not self._writer.done():
            self._writer.set_result(None)

    def _closed(self, event: grpc_core.Event) -> bool:
        self._is_over = True
        return not grpc_core.was_cancelled(event)

    def _cancel(self, event: grpc_core.Event) -> None:
        self.task.cancel()
        # A task that is cancelled before it has begun keeps its exception, whose traceback leads here. That would be a
        # reference cycle, and a client that resets thousands of calls makes thousands.
        del self.task
