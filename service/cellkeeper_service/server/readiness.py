"""Whether the process is alive, and whether it should get requests. The threads of the metrics port ask."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as OutOfTime
from threading import Event
from typing import Any

LIVE_SECONDS = 5.0
"""An event loop that runs no callback within this time counts as stuck: ticks take milliseconds, and a slow store does
not block it."""

LOADING = "loading its models"
ENDING = "draining"


class Readiness:
    """The server's state, as probes see it: it is loading until `serving` is called, and draining after `end`."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reach_store: Callable[[], Coroutine[Any, Any, str]] | None = None
        self.ending = False

    def serving(self, reach_store: Callable[[], Coroutine[Any, Any, str]]) -> None:
        """Call in the event loop that serves. reach_store: returns why the store cannot be used; empty if it can."""
        self._loop = asyncio.get_running_loop()
        self._reach_store = reach_store

    def end(self) -> None:
        """Reports from now on that new clients should go elsewhere."""
        self.ending = True

    def why_dead(self) -> str:
        """Returns why the process should be killed; empty if it is alive. Loading and draining count as alive."""
        loop, turned = self._loop, Event()
        if loop is None or loop.is_closed():
            return ""
        try:
            loop.call_soon_threadsafe(turned.set)
        except RuntimeError:  # the loop was closed just now
            return ""
        if turned.wait(LIVE_SECONDS) or loop.is_closed():  # it may be closed before it runs what was scheduled
            return ""
        return f"its event loop did not respond within {LIVE_SECONDS:g} s"

    def why_not_ready(self) -> str:
        """Returns why no requests should be sent here; empty if it is ready."""
        if self.ending:
            return ENDING
        loop, reach_store = self._loop, self._reach_store
        if loop is None or reach_store is None:
            return LOADING
        if loop.is_closed():
            return ENDING
        if dead := self.why_dead():
            return dead
        asking = reach_store()
        try:
            asked = asyncio.run_coroutine_threadsafe(asking, loop)
        except RuntimeError:  # the loop was closed just now
            asking.close()
            return ENDING
        try:
            return asked.result(LIVE_SECONDS)
        except OutOfTime:
            asked.cancel()
            if loop.is_closed():  # before it began to ask
                asking.close()
                return ENDING
            return f"the store did not answer within {LIVE_SECONDS:g} s"
        except CancelledError:  # the event loop ended while the store was asked
            return ENDING
