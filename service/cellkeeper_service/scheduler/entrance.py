"""Letting calls in. gRPC needs several turns of the loop for each; where ticks take most of the time it gets them only
between two ticks, and calls would wait there, unseen, longer than their deadlines. And a tick costs nearly the same for
one step as for a few dozen: calls that are on their way in are worth a moment."""

from __future__ import annotations

import asyncio
import time

LONGEST_SECONDS = 0.02
LONGEST_SHARE = 3.0
"""So long, or so many times what the tick took, is at the most spent on it."""

QUIET_SECONDS = 300e-6
"""Without anything to do for so long, no call is taken to be on its way. The loop is looked at turn by turn: its timers
know nothing shorter than a millisecond."""

EMPTY_TURN_SECONDS = 50e-6
"""A turn of the loop that takes less had nothing to do."""

ALONE = 3
AGAIN = 16
"""After ALONE times in vain whoever comes is taken to be alone, AGAIN times, and nobody is waited for."""


class Entrance:
    """Counts calls with steps as they come. The frames of streams need not be let in: a turn or two does for each."""

    def __init__(self) -> None:
        self._count = 0
        self._before = 0
        self._in_vain = 0

    def came(self) -> None:
        self._count += 1

    async def let_in(self, tick_seconds: float) -> None:
        """Lets those in that came during a tick, which took so long, and those behind them. Returns at once where none
        came."""
        count = self._count - self._before
        self._before = self._count
        if count == 0 or (count == 1 and self._is_alone()):
            return
        now = time.monotonic()
        until = now + max(LONGEST_SECONDS, LONGEST_SHARE * tick_seconds)
        still = 0.0
        while now < until and still < QUIET_SECONDS:
            since = now
            await asyncio.sleep(0)
            now = time.monotonic()
            turn = now - since
            still = still + turn if turn < EMPTY_TURN_SECONDS else 0.0
        self._in_vain = self._in_vain + 1 if self._count == self._before else 0

    def _is_alone(self) -> bool:
        if self._in_vain < ALONE:
            return False
        self._in_vain = (self._in_vain + 1) % (ALONE + AGAIN)
        return True
