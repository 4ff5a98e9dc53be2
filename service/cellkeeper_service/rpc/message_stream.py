"""One open stream: reads messages while there is room for their replies, and sends replies as they become ready."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import Generic, TypeVar

from cellkeeper_service.core.loop import CoreLoop
from cellkeeper_service.domain.meter import Meter
from cellkeeper_service.errors import Rejection

from . import model_changed
from .caller import Caller

In = TypeVar("In")
Out = TypeVar("Out")


class MessageStream(ABC, Generic[In, Out]):
    """Submits messages in the order in which they arrive, which keeps the order within each session."""

    def __init__(self, caller: Caller, core: CoreLoop, meter: Meter, latest: float) -> None:
        """latest: the call's deadline in seconds of the monotonic clock; infinity if it has none."""
        self._caller = caller
        self._core = core
        self._meter = meter
        self._latest = latest
        self._out: deque[tuple[Out, bool]] = deque()
        self._awaits_out: asyncio.Future[None] | None = None  # asyncio.Queue takes 14 calls for each reply
        self._reader: asyncio.Task[None] | None = None
        self._unreplied = 0  # messages whose last reply has not been sent
        self._most_unreplied = caller.catalog.limits.max_stream_frames
        self._has_room = asyncio.Event()
        self._ended = False  # no more messages are read
        self._why: Rejection | None = None

    @abstractmethod
    def announce_end(self) -> None:
        """Called when the server is about to stop."""

    @abstractmethod
    def _submit(self, message: In) -> None:
        """Starts what the message asks for; its replies are passed to `_reply`."""

    @abstractmethod
    def _abandon(self) -> None:
        """Called when nobody reads the replies any more."""

    def finish(self, why: Rejection | None = None) -> None:
        """Stops reading messages, when the client does not end the stream itself.

        The stream ends with `why` once all messages read so far are answered. Nothing of the other messages was
        applied.
        """
        if self._reader is not None:
            self._reader.cancel()
        if not self._ended:
            self._ended, self._why = True, why
            self._wake()

    async def replies(
        self, messages: AsyncIterator[In], check: Callable[[Caller], None]
    ) -> AsyncGenerator[list[Out], None]:
        """Yields the replies that are ready, until every message is answered.

        check: raises a Rejection if the caller may not continue.

        If reading a message raises a Rejection, such as for bytes that are not a message, it is raised here after the
        replies to the messages before, because such bytes do not say what should be answered.
        """
        reader = self._reader = asyncio.get_running_loop().create_task(self._read(messages, check))
        try:
            while self._out or self._unreplied > 0 or not self._ended:
                if not self._out:
                    self._awaits_out = asyncio.get_running_loop().create_future()
                    await self._awaits_out
                ready, answered = self._take_ready()
                if ready:
                    yield ready
                    for _ in range(answered):  # only now: a client that reads no replies cannot cause more of them
                        self._release()
            if self._why is not None:
                raise self._why
            if reader.done() and not reader.cancelled():
                reader.result()  # what ended the messages
        finally:
            reader.cancel()
            self._abandon()

    def _until(self) -> float:
        """Returns the deadline of a message that comes now, in seconds of the monotonic clock."""
        return min(time.monotonic() + self._caller.catalog.limits.default_timeout_ms / 1000, self._latest)

    def _reply(self, reply: Out, is_last: bool = True) -> None:
        """Queues a reply. is_last: its message has no further replies."""
        self._out.append((reply, is_last))
        self._wake()

    def _ask(
        self,
        refused: Rejection,
        message: In,
        model: str,
        sessions: Sequence[str],
        done: Callable[[list[Rejection]], None],
    ) -> None:
        """Calls `done` with the reasons to refuse the message: see model_changed.ask, whose reads the message pays for.

        If the quota does not allow them, the reason is `refused`.
        """
        try:
            charge = self._caller.charge(message)
        except Rejection:
            done([refused])
            return

        def found(reasons: list[Rejection]) -> None:
            self._caller.release(charge)
            done(reasons)

        model_changed.ask(refused, self._core, self._caller.catalog, model, sessions, self._until(), found)

    def _release(self) -> None:
        """Makes room for another message: the last reply to one has been sent, or it gets none."""
        self._unreplied -= 1
        self._has_room.set()

    def _wake(self) -> None:
        """Lets `replies` look again at what there is to send."""
        awaited = self._awaits_out
        if awaited is not None and not awaited.done():
            awaited.set_result(None)

    def _take_ready(self) -> tuple[list[Out], int]:
        """Returns the replies that are ready, and how many of them are their messages' last ones."""
        ready = [reply for reply, _ in self._out]
        answered = sum(is_last for _, is_last in self._out)
        self._out.clear()
        return ready, answered

    async def _read(self, messages: AsyncIterator[In], check: Callable[[Caller], None]) -> None:
        try:
            async for message in messages:
                while self._unreplied >= self._most_unreplied:
                    self._has_room.clear()
                    await self._has_room.wait()
                check(self._caller)
                self._submit(message)
                self._unreplied += 1
        finally:
            self._ended = True
            self._wake()
