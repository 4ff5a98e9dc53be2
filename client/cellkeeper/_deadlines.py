"""One timer for all calls that wait, instead of one each."""

from __future__ import annotations

import asyncio
from typing import Protocol


class Expiring(Protocol):
    """Something with a deadline on the event loop's clock."""

    @property
    def deadline(self) -> float: ...

    def expire(self) -> None: ...


class Deadlines:
    """Calls `expire` of what is still here at its deadline.

    The timer is armed for the earliest deadline known; what is removed before leaves it armed, so that a steady
    load re-arms it once a timeout and not once a call.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[int, Expiring] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._armed_for = float("inf")

    def add(self, item: Expiring) -> None:
        self._waiting[id(item)] = item
        if item.deadline < self._armed_for:
            self._arm(item.deadline)

    def remove(self, item: Expiring) -> None:
        self._waiting.pop(id(item), None)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._waiting.clear()

    def _arm(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._armed_for = deadline
        self._timer = self._loop.call_at(deadline, self._fire)

    def _fire(self) -> None:
        self._timer, self._armed_for = None, float("inf")
        now = self._loop.time()
        for item in [item for item in self._waiting.values() if item.deadline <= now]:
            if self._waiting.pop(id(item), None) is not None:
                item.expire()
        if self._waiting:
            earliest = min(item.deadline for item in self._waiting.values())
            if earliest < self._armed_for:
                self._arm(earliest)
