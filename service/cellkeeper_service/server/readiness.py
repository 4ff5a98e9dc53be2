"""Whether the process lives, and whether it should get requests. Asked by the threads of the HTTP port."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import TimeoutError as OutOfTime
from threading import Event

LIVE_SECONDS = 5.0
"""A loop that does not come round in this time is taken for stuck: ticks take milliseconds, a slow store stops none."""

LOADING = "loading its models"
ENDING = "draining"


class Readiness:
    """Begins as "loading", is told when the server serves and when it ends."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reach_store: Callable[[], Awaitable[str]] | None = None
        self._ending = False

    def serving(self, reach_store: Callable[[], Awaitable[str]]) -> None:
        """To be called within the loop that serves. reach_store: why the store does not answer; empty: it does."""
        self._loop = asyncio.get_running_loop()
        self._reach_store = reach_store

    @property
    def ending(self) -> bool:
        return self._ending

    def end(self) -> None:
        """From now on there is nothing to be had here for new clients."""
        self._ending = True

    def why_dead(self) -> str:
        """Why the process should be killed; empty: it lives. One that loads lives, and so does one that drains."""
        loop, turned = self._loop, Event()
        if loop is None or loop.is_closed():
            return ""
        try:
            loop.call_soon_threadsafe(turned.set)
        except RuntimeError:  # it was closed just now
            return ""
        return "" if turned.wait(LIVE_SECONDS) else f"its loop did not come round in {LIVE_SECONDS:g} s"

    def why_not_ready(self) -> str:
        """Why no request should be sent here; empty: it is ready."""
        if self._ending:
            return ENDING
        loop, reach_store = self._loop, self._reach_store
        if loop is None or reach_store is None:
            return LOADING
        if dead := self.why_dead():
            return dead

        async def ask() -> str:
            return await reach_store()

        asked = asyncio.run_coroutine_threadsafe(ask(), loop)
        try:
            return asked.result(LIVE_SECONDS)
        except OutOfTime:
            asked.cancel()
            return f"the store did not answer in {LIVE_SECONDS:g} s"
