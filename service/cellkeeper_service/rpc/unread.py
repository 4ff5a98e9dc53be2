"""Bounds the number and the duration of calls whose message has not arrived yet.

gRPC buffers what has arrived of it, up to a whole message for each call, and does not report how much that is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from cellkeeper_service.errors import Reason, Rejection

from .call_context import EOF, CallContext

RETRY_DELAY_MS = 1000
SWEEP_SECONDS = 0.1
SLOW_SWEEPS = 3
"""An ordinary call's message arrives with it. A call that this many sweeps have found waiting is slow, and the number
of slow calls is limited. Sweeps, not only seconds: if the loop itself was late, messages may have arrived that it has
not looked at.
"""

PORTION, PORTION_SECONDS = 4, 0.01
"""How many slow calls one turn of the loop ends, and how long until the next: ending thousands at once would hold up
everything else, and a client that opens calls only to have them ended has to wait for its places."""


@dataclass(slots=True, eq=False)
class _Waiting:
    peer: str
    since: float
    task: asyncio.Task[Any]
    sweeps: int = 0  # how many found it
    why: tuple[Reason, str] | None = None  # set if it was ended


class Unread:
    """Limits calls that wait for their message.

    If there are too many, the connection with the most loses the one that has waited longest: a client that opens many
    and sends nothing takes places from itself.
    """

    def __init__(self, timeout_ms: int, most: int, most_slow: int) -> None:
        """timeout_ms: from the start of a call to its message.

        most: waiting calls. most_slow: waiting calls that SLOW_SWEEPS sweeps have found.
        """
        self._timeout_ms = timeout_ms
        self._most = most
        self._most_slow = most_slow
        self._by_peer: dict[str, dict[_Waiting, None]] = {}  # longest waiting first
        self._count = 0
        self._sweeping: asyncio.TimerHandle | None = None

    async def read(self, context: CallContext) -> Any:
        """Returns the call's first message, or EOF. Raises a Rejection if it does not arrive in time."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a message is read outside of a task")
        waiting = _Waiting(context.peer(), time.monotonic(), task)
        if self._count >= self._most:
            self._end_one(f"{self._most} calls wait for their messages, the maximum")
        self._by_peer.setdefault(waiting.peer, {})[waiting] = None
        self._count += 1
        if self._sweeping is None:
            self._sweeping = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)
        try:
            return await context.read()
        except asyncio.CancelledError:
            if waiting.why is None:
                raise
            if hasattr(task, "uncancel"):
                task.uncancel()
            # created here, not kept: an exception that its own traceback's frame refers to is a reference cycle, and
            # collecting thousands of them stops the process
            raise Rejection(*waiting.why, retry_delay_ms=RETRY_DELAY_MS) from None
        finally:
            if waiting.why is None:
                self._forget(waiting)

    async def messages(self, context: CallContext, arrived: Callable[[], None]) -> AsyncIterator[Any]:
        """Yields all messages of a stream, and calls `arrived` for each.

        The first has to arrive in time, the others at any time (half_sent.py limits what is buffered of them).
        """
        message = await self.read(context)
        while message is not EOF:
            arrived()
            yield message
            message = await context.read()

    def _sweep(self) -> None:
        self._sweeping = None
        now, slow = time.monotonic(), 0
        late, fresh = now - self._timeout_ms / 1000, now - SLOW_SWEEPS * SWEEP_SECONDS
        for calls in list(self._by_peer.values()):
            for waiting in list(calls):
                waiting.sweeps += 1
                if waiting.since <= late:
                    text = f"the call's message did not arrive within {self._timeout_ms} ms"
                    self._end(waiting, Reason.DEADLINE_PASSED, text)
                else:
                    slow += waiting.sweeps >= SLOW_SWEEPS and waiting.since <= fresh
        for _ in range(min(slow - self._most_slow, PORTION)):
            self._end_one(f"{self._most_slow} calls are slow to send their messages, the maximum")
        if self._count:
            seconds = SWEEP_SECONDS if slow - self._most_slow < PORTION else PORTION_SECONDS
            self._sweeping = asyncio.get_running_loop().call_later(seconds, self._sweep)

    def _end_one(self, text: str) -> None:
        calls = max(self._by_peer.values(), key=len)
        self._end(next(iter(calls)), Reason.QUEUE_FULL, text)

    def _end(self, waiting: _Waiting, reason: Reason, text: str) -> None:
        self._forget(waiting)
        waiting.why = reason, text
        waiting.task.cancel()

    def _forget(self, waiting: _Waiting) -> None:
        calls = self._by_peer[waiting.peer]
        del calls[waiting]
        self._count -= 1
        if not calls:
            del self._by_peer[waiting.peer]
