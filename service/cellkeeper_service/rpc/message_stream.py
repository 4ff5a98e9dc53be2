"""One open stream: messages are read while there is room for their replies, and replies leave as they become ready."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Generic, TypeVar

from cellkeeper_service.errors import Rejection

from .caller import Caller
from .decoding import Malformed

In = TypeVar("In")
Out = TypeVar("Out")


class MessageStream(ABC, Generic[In, Out]):
    """Messages are submitted in the order of their arrival, so that order is kept within a session."""

    def __init__(self, caller: Caller, latest: float | None, check: Callable[[Caller], None]) -> None:
        """latest: the call's deadline, in seconds of the monotonic clock, where it has one. check: raises a Rejection
        where the caller may not go on."""
        self._caller = caller
        self._latest = latest
        self._check = check
        self._out: deque[tuple[Out, bool] | Rejection | None] = deque()
        self._awaits_out: asyncio.Future[None] | None = None  # a queue of asyncio takes fourteen calls for a reply
        self._reader: asyncio.Task[None] | None = None
        self._unreplied = 0  # messages whose last reply has not left
        self._most_unreplied = caller.catalog.limits.max_stream_frames
        self._has_room = asyncio.Event()
        self._ended = False
        self._finishing = False
        self._why: Rejection | None = None

    @abstractmethod
    def announce_end(self) -> None:
        """The server is about to stop."""

    @abstractmethod
    def _submit(self, message: In) -> None:
        """Begins what the message asks for; its replies go to `_reply`."""

    @abstractmethod
    def _is_answered(self) -> bool:
        """Whether every message that was read has all of its replies."""

    @abstractmethod
    def _abandon(self) -> None:
        """Nobody reads the replies any more."""

    def finish(self, why: Rejection | None = None) -> None:
        """Reads no further messages, where the client would not end: the stream ends once those that were read are
        answered, with this status. Of the others nothing was applied."""
        self._finishing = self._ended = True
        self._why = why
        if self._reader is not None:
            self._reader.cancel()
            self._end_if_answered()

    async def replies(self, messages: AsyncIterator[In | Malformed]) -> AsyncGenerator[Out, None]:
        """Ends when every message is answered. Raises a Rejection, after the replies to the messages before it, for
        bytes that are no message: nothing in them says what could be answered."""
        if self._finishing:
            return
        reader = self._reader = asyncio.get_running_loop().create_task(self._read(messages))
        try:
            while (reply := await self._next_out()) is not None:
                if isinstance(reply, Rejection):
                    raise reply
                message, is_last = reply
                yield message
                if is_last:  # it has left: a client that does not read its replies cannot make more of them
                    self._release()
            if not self._finishing:
                await reader
        finally:
            reader.cancel()
            self._abandon()

    def end(self, why: Rejection) -> None:
        """Ends the stream with that status; what is under way is not waited for."""
        self._put_out(why)

    def _reply(self, reply: Out, is_last: bool = True) -> None:
        """is_last: its message has no further replies."""
        self._put_out((reply, is_last))

    def _release(self) -> None:
        """A message that was read has left room for another."""
        self._unreplied -= 1
        self._has_room.set()

    def _put_out(self, reply: tuple[Out, bool] | Rejection | None) -> None:
        self._out.append(reply)
        awaited = self._awaits_out
        if awaited is not None and not awaited.done():
            awaited.set_result(None)

    async def _next_out(self) -> tuple[Out, bool] | Rejection | None:
        while not self._out:
            self._awaits_out = asyncio.get_running_loop().create_future()
            await self._awaits_out
        return self._out.popleft()

    async def _read(self, messages: AsyncIterator[In | Malformed]) -> None:
        try:
            async for message in messages:
                if isinstance(message, Malformed):
                    raise message.rejection()
                while self._unreplied >= self._most_unreplied:
                    self._has_room.clear()
                    await self._has_room.wait()
                self._unreplied += 1
                self._check(self._caller)
                self._submit(message)
        finally:
            self._ended = True
            self._end_if_answered()

    def _end_if_answered(self) -> None:
        if self._ended and self._is_answered():
            self._put_out(self._why)
