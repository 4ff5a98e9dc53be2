"""The pause of one session before it sends again what was refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..errors import CellkeeperError, StepGap
from ..types import Backoff


class RetryPause:
    """Grows with each refusal, until a step succeeds. active: nothing is sent meanwhile."""

    __slots__ = ("_attempt", "_backoff", "_loop", "_timer", "active")

    def __init__(self, loop: asyncio.AbstractEventLoop, backoff: Backoff) -> None:
        self.active = False
        self._loop = loop
        self._backoff = backoff
        self._attempt = 0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, error: CellkeeperError, on_end: Callable[[], None]) -> None:
        """Begins a pause after this refusal, unless there is one. on_end: called when it is over."""
        if self.active:
            return
        if isinstance(error, StepGap) and self._attempt == 0:
            self._attempt = 1  # the first replay need not wait
            return
        seconds = self._backoff.wait_seconds(self._attempt, error.retry_delay_ms)
        self._attempt += 1
        self.active = True
        self._timer = self._loop.call_later(seconds, self._end, on_end)

    def succeeded(self) -> None:
        """Notes that a step succeeded: the next pause is short again."""
        self._attempt = 0

    def cancel(self) -> None:
        """Ends it for good; nobody is called."""
        if self._timer is not None:
            self._timer.cancel()

    def _end(self, on_end: Callable[[], None]) -> None:
        self.active = False
        self._timer = None
        on_end()
