"""Calls that run one after another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from .retry import out_of_time


class Turns:
    """Such calls, each in its turn. what: they do, for the error of one whose turn does not come in time."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._last: asyncio.Future[None] | None = None  # done once the latest call is over

    @asynccontextmanager
    async def one(self, timeout: float) -> AsyncIterator[None]:
        """Waits until every earlier call is over; later ones wait while the caller is inside.

        timeout: seconds. Raises DeadlineExceeded.
        """
        before, over = self._last, asyncio.get_running_loop().create_future()
        self._last = over
        try:
            if before is not None and not before.done():
                await asyncio.wait([before], timeout=timeout)
                if not before.done():
                    why = f"it was not sent: another call that {self._what} is still under way"
                    raise out_of_time(timeout, timeout, "the server", None, why)
            yield
        finally:
            if before is None or before.done():
                over.set_result(None)
            else:  # it has left the queue
                before.add_done_callback(lambda _: over.set_result(None))
