"""One timer for the deadlines of all waiting calls."""

from __future__ import annotations

import asyncio
from typing import Protocol


class Expiring(Protocol):
    """Something with deadlines on the event loop's clock. watched: it was added to Deadlines."""

    watched: bool

    def expire(self, now: float) -> float:
        """Ends whatever has expired. Returns the next deadline, or infinity."""
        ...


class Deadlines:
    """Calls `expire` of each added item at the earliest deadline.

    The timer stays armed when a call is answered early, and items with nothing left to expire are dropped when it
    fires. So under steady load each call costs one comparison, and each timeout one pass over all items.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._active: set[Expiring] = set()
        self._timer: asyncio.TimerHandle | None = None
        self.armed_for = float("inf")

    def add(self, item: Expiring, deadline: float) -> None:
        """Registers a deadline of the item. Needless if it is watched and the timer is armed for an earlier one."""
        self._active.add(item)
        item.watched = True
        if deadline < self.armed_for:
            self._arm(deadline)

    def remove(self, item: Expiring) -> None:
        self._active.discard(item)
        item.watched = False

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._active.clear()

    def _arm(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.armed_for = deadline
        self._timer = self._loop.call_at(deadline, self._fire)

    def _fire(self) -> None:
        self._timer, self.armed_for = None, float("inf")
        now = self._loop.time()
        for item in list(self._active):
            earliest = item.expire(now)
            if earliest == float("inf"):
                self.remove(item)
            elif earliest < self.armed_for:
                self._arm(earliest)
