"""Callers that wait until every step before them is answered."""

from __future__ import annotations

import asyncio

from ..errors import CellkeeperError


class Drains:
    """The callers that wait for one sender. True if there are any, even if they have all given up since."""

    __slots__ = ("_futures", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._futures: list[asyncio.Future[None]] = []

    def __bool__(self) -> bool:
        return bool(self._futures)

    def begin(self) -> asyncio.Future[None]:
        """Returns the future of one more caller."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._futures.append(future)
        return future

    def finish(self) -> None:
        """Tells all callers that the steps are answered."""
        for future in self._take():
            future.set_result(None)

    def fail(self, error: CellkeeperError) -> None:
        """Tells all callers why the steps will not be answered."""
        for future in self._take():
            future.set_exception(error)

    def _take(self) -> list[asyncio.Future[None]]:
        futures, self._futures = self._futures, []
        return [future for future in futures if not future.done()]
