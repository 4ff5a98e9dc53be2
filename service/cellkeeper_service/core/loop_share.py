"""Shares the event loop's time between ticks and the calls that arrive.

A call is accepted in one turn of the event loop, and its message arrives in a later one. Where ticks take most of the
time, calls get these turns only between two ticks, and would wait there, unseen, beyond their deadlines. And a tick
costs nearly the same for one step as for a few dozen, so calls that are about to arrive are worth a short wait. See
docs/adr/010-unread-refusals.md and 454-returning-callers.md.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

from cellkeeper_service.domain.record import SessionKey

from .attempts import Attempts
from .callers import Callers
from .requests import Request

WINDOW_SECONDS = 0.05  # of ticks and idle time together, that one measurement of the share takes
HIGH_SHARE = 0.25  # while calls come without a pause, accepting them is the rest

LONGEST_SECONDS = 0.02
LONGEST_TICKS = 3.0
"""The loop waits for calls at most this long, or this many times what the last tick took, whichever is longer."""

QUIET_SECONDS = 0.001
"""A wait ends when no call came for this long. It is the shortest timer of the event loop."""

AWAY_SHARE = 0.6
"""A wait ends when no more than this share of the callers is away: the next tick need not wait for the slowest, and the
others return while it computes."""

ENOUGH_REQUESTS = 64
"""It ends, too, when this many requests wait. A larger batch costs no less for each, and a stream hands over no more
before some are answered (by default, `--max-stream-frames`)."""


class LoopShare:
    """Measures the share of ticks in the time that is not spent on waiting for calls, and waits where it is high.

    The frames of streams need no waiting: the event loop takes them in within a turn or two.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        """monotonic: the time, in seconds."""
        self.share = 0.0
        self._monotonic = monotonic
        self._tick_seconds = 0.0
        self._idle_seconds = 0.0
        self._calls = 0
        self._calls_before = 0  # when the last wait began
        self._attempts = Attempts()  # to wait for somebody after a single caller
        self._callers = Callers()
        self._enough = 0  # a wait ends when no more callers than this are away
        self._pause: asyncio.Future[None] | None = None

    @property
    def is_high(self) -> bool:
        """Whether ticks take so much that gRPC gets too few turns by itself."""
        return self.share > HIGH_SHARE

    def turned(self, tick_seconds: float, idle_seconds: float = 0.0) -> None:
        """A tick took so long, and then the loop had nothing to do for so long."""
        self._tick_seconds += tick_seconds
        self._idle_seconds += idle_seconds
        total = self._tick_seconds + self._idle_seconds
        if total >= WINDOW_SECONDS:
            self.share = self._tick_seconds / total
            self._tick_seconds = self._idle_seconds = 0.0

    def call_came(self) -> None:
        """A call with steps has been accepted; it may still be refused."""
        self._calls += 1

    def submitted(self, key: SessionKey) -> None:
        """A request for this session was submitted by itself."""
        self._callers.came(key)
        if self._pause is not None and self._callers.away <= self._enough:
            self._end_pause()

    def answered(self, requests: Iterable[Request]) -> None:
        """These requests have their results."""
        self._callers.answered(requests, self._monotonic())

    async def let_in(self, tick_seconds: float, unanswered: int) -> None:
        """Waits until most callers are back, or until no call comes any more. Returns at once where ticks leave the
        loop enough time, or where no call came since the last wait.

        tick_seconds: what the last tick took. unanswered: requests that have no result.
        """
        if not self.is_high:
            return
        calls, self._calls_before = self._calls - self._calls_before, self._calls
        if calls == 0 or (calls == 1 and self._attempts.skip()):
            return
        now, callers = self._monotonic(), self._callers
        callers.forget(now)
        # where callers do not return, new ones may come at any time: -1 waits until it is quiet
        together = callers.away + unanswered
        self._enough = max(int(AWAY_SHARE * together), together - ENOUGH_REQUESTS) if callers.return_soon else -1
        until = now + max(LONGEST_SECONDS, LONGEST_TICKS * tick_seconds)
        while callers.away > self._enough and now < until:
            seen = self._calls
            await self._rest()
            if self._calls == seen:
                break
            now = self._monotonic()
        self._attempts.ended(success=self._calls > self._calls_before)

    async def _rest(self) -> None:
        """Leaves the event loop to others for QUIET_SECONDS, or until enough callers are back."""
        loop = asyncio.get_running_loop()
        self._pause = loop.create_future()
        timer = loop.call_later(QUIET_SECONDS, self._end_pause)
        try:
            await self._pause
        finally:
            timer.cancel()

    def _end_pause(self) -> None:
        if self._pause is not None and not self._pause.done():
            self._pause.set_result(None)
