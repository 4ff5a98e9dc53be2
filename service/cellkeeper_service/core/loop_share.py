"""Shares the event loop's time between ticks and the calls that arrive.

gRPC needs several turns of the loop to accept a call. Where ticks take most of the time it gets them only between two
ticks, and calls would wait there, unseen, longer than their deadlines. And a tick costs nearly the same for one step as
for a few dozen: calls that are on their way in are worth a moment. See docs/adr/010-unread-refusals.md and
015-steps-one-by-one.md.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

WINDOW_SECONDS = 0.05  # of ticks and idle time together, that one measurement of the share takes
HIGH_SHARE = 0.25  # while calls come without a pause, accepting them is the rest

LONGEST_SECONDS = 0.02
LONGEST_TICKS = 3.0
"""So long, or so many times what the tick took, is at the most spent on accepting calls."""

QUIET_SECONDS = 300e-6
"""Without anything to do for so long, no call is taken to be on its way. The loop is looked at turn by turn: its timers
know nothing shorter than a millisecond."""

EMPTY_TURN_SECONDS = 50e-6
"""A turn of the loop that takes less had nothing to do."""

TRIES = 3
SKIPS = 16
"""After so many tries in vain a call that comes by itself is taken to be the only one, so many times, and nobody is
waited for."""


class LoopShare:
    """Measures the share of ticks in the time that is not spent on accepting calls, and accepts calls where it is high.

    The frames of streams need no accepting: a turn or two of the loop does for each.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        """monotonic: the time, in seconds."""
        self.share = 0.0
        self._monotonic = monotonic
        self._tick_seconds = 0.0
        self._idle_seconds = 0.0
        self._calls = 0
        self._calls_before = 0  # at the begin of the last try
        self._in_vain = 0

    @property
    def is_high(self) -> bool:
        """Whether ticks take so much that gRPC gets too few turns by itself."""
        return self.share > HIGH_SHARE

    def ticked(self, seconds: float) -> None:
        """A tick took so long."""
        self._tick_seconds += seconds
        self._measure()

    def idled(self, seconds: float) -> None:
        """The loop waited so long for something to do."""
        self._idle_seconds += seconds
        self._measure()

    def call_came(self) -> None:
        """A call with steps has been accepted."""
        self._calls += 1

    async def let_in(self, tick_seconds: float) -> None:
        """Accepts the calls that came during a tick, which took so long, and those behind them. Returns at once where
        ticks leave the loop enough time, or no call came since the last try."""
        if not self.is_high:
            return
        calls, self._calls_before = self._calls - self._calls_before, self._calls
        if calls == 0 or (calls == 1 and self._skips()):
            return
        now = self._monotonic()
        until = now + max(LONGEST_SECONDS, LONGEST_TICKS * tick_seconds)
        quiet = 0.0
        while now < until and quiet < QUIET_SECONDS:
            since = now
            await asyncio.sleep(0)
            now = self._monotonic()
            turn = now - since
            quiet = quiet + turn if turn < EMPTY_TURN_SECONDS else 0.0
        self._in_vain = self._in_vain + 1 if self._calls == self._calls_before else 0

    def _skips(self) -> bool:
        if self._in_vain < TRIES:
            return False
        self._in_vain = (self._in_vain + 1) % (TRIES + SKIPS)
        return True

    def _measure(self) -> None:
        total = self._tick_seconds + self._idle_seconds
        if total >= WINDOW_SECONDS:
            self.share = self._tick_seconds / total
            self._tick_seconds = self._idle_seconds = 0.0
