"""One timer for the deadlines of all waiting calls."""

from __future__ import annotations

import asyncio
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Protocol

NEVER = float("inf")


class Expiring(Protocol):
    """Something with deadlines on the event loop's clock.

    next_deadline: when it expires next, infinity if never; `Deadlines` sets it.
    """

    next_deadline: float

    def expire(self, now: float) -> float:
        """Ends whatever has expired. Returns the next deadline, or infinity."""
        ...


class Deadlines:
    """Calls `expire` of each added item at its earliest deadline.

    An item's entry stays when a call is answered early, and is renewed when it comes up. So under steady load a call
    costs one comparison, and an item one entry for each timeout that passes.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._entries: list[tuple[float, int, Expiring]] = []  # a heap
        self._stale = 0  # entries that are not of their item's next deadline
        self._numbers = count()  # so that items with equal deadlines are not compared
        self._timer: asyncio.TimerHandle | None = None
        self._armed_for = NEVER

    def add(self, item: Expiring, deadline: float) -> None:
        """Registers a deadline of the item, which matters only if it is earlier than its next deadline."""
        if deadline >= item.next_deadline:
            return
        if item.next_deadline != NEVER:
            self._stale += 1
        item.next_deadline = deadline
        heappush(self._entries, (deadline, next(self._numbers), item))
        if deadline < self._armed_for:
            self._arm(deadline)

    def remove(self, item: Expiring) -> None:
        """Forgets the item."""
        if item.next_deadline == NEVER:
            return
        item.next_deadline = NEVER
        self._stale += 1
        if 2 * self._stale > len(self._entries):  # what is gone is not kept until its deadline
            self._entries = [entry for entry in self._entries if entry[0] == entry[2].next_deadline]
            heapify(self._entries)
            self._stale = 0

    def close(self) -> None:
        """Stops the timer."""
        if self._timer is not None:
            self._timer.cancel()
        self._entries.clear()

    def _arm(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._armed_for = deadline
        self._timer = self._loop.call_at(deadline, self._fire)

    def _fire(self) -> None:
        now = self._loop.time()
        self._timer, self._armed_for = None, now  # no entry is earlier: it is armed once, at the end
        due: list[Expiring] = []
        while self._entries and self._entries[0][0] <= now:
            deadline, _, item = heappop(self._entries)
            if deadline == item.next_deadline:
                item.next_deadline = NEVER
                due.append(item)
            else:
                self._stale -= 1
        try:
            for item in due:
                self.add(item, item.expire(now))
        finally:
            self._armed_for = NEVER
            if self._entries:
                self._arm(self._entries[0][0])
