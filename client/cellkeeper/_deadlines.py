"""One timer for all calls that wait, instead of one each."""

from __future__ import annotations

import asyncio
from typing import Protocol


class Expiring(Protocol):
    """Something with deadlines, on the event loop's clock."""

    def expire(self, now: float) -> float:
        """Ends what is over; the next deadline, infinity where there is none."""
        ...


class Deadlines:
    """Calls `expire` of what was added, at its earliest deadline.

    The timer is armed for the earliest deadline known. What is answered before leaves it armed, and what has
    nothing left to expire is found out when it fires: a steady load pays for a comparison at each call, and for a
    look at everything once a timeout.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._active: set[Expiring] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._armed_for = float("inf")

    def add(self, item: Expiring, deadline: float) -> None:
        """The item has another deadline."""
        self._active.add(item)
        if deadline < self._armed_for:
            self._arm(deadline)

    def remove(self, item: Expiring) -> None:
        self._active.discard(item)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._active.clear()

    def _arm(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._armed_for = deadline
        self._timer = self._loop.call_at(deadline, self._fire)

    def _fire(self) -> None:
        self._timer, self._armed_for = None, float("inf")
        now = self._loop.time()
        for item in list(self._active):
            earliest = item.expire(now)
            if earliest == float("inf"):
                self._active.discard(item)
            elif earliest < self._armed_for:
                self._arm(earliest)
