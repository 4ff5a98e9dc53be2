"""What the senders of sessions and of groups have in common."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from copy import copy

from ..errors import CellkeeperError
from .event_loop import check_loop

NEVER = float("inf")


class Sender(ABC):
    """A sender belongs to one event loop, and ends with an error that every later use raises.

    next_deadline: when `expire` is called next, on the event loop's clock; infinity: never.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.next_deadline = NEVER
        self._timer: asyncio.TimerHandle | None = None
        self._closed: CellkeeperError | None = None

    @property
    def closed(self) -> bool:
        return self._closed is not None

    def check(self) -> None:
        """Raises WrongEventLoop, or the error it was closed with."""
        if self._closed is not None:
            raise copy(self._closed)
        check_loop(self.loop)

    def disown(self, error: CellkeeperError) -> None:
        """Makes every later use raise `error`. Leaves its event loop alone, which is closed or another process's."""
        self._closed = error

    # ------------------------------------------------------------------------------------------ deadlines

    @abstractmethod
    def expire(self, now: float) -> float:
        """Ends the calls whose deadline has passed. Returns the next deadline, infinity if no call waits."""

    def expire_at(self, deadline: float) -> None:
        """Registers the deadline of a call, which matters only if it is earlier than `next_deadline`.

        The timer stays when a call is answered early, and is renewed when it fires. So under steady load a call costs
        one comparison, and a sender one timer for each timeout that passes.
        """
        if deadline < self.next_deadline:
            self.expire_never()
            self.next_deadline = deadline
            self._timer = self.loop.call_at(deadline, self._fire)

    def expire_never(self) -> None:
        """Forgets the deadlines."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self.next_deadline = None, NEVER

    def _fire(self) -> None:
        self._timer, self.next_deadline = None, NEVER
        self.expire_at(self.expire(self.loop.time()))
