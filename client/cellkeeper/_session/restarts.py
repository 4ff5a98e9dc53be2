"""Calls that give a session another generation."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Restarts:
    """Such calls of one session, or of the members of one group, each from its request until its outcome is known here.

    In between, the server may refuse another call because of a generation that this client does not know yet.
    """

    def __init__(self) -> None:
        self._under_way: set[asyncio.Future[None]] = set()

    @contextmanager
    def one(self) -> Iterator[None]:
        """Counts one as under way while the caller is inside, who no longer waits for any step."""
        over = asyncio.get_running_loop().create_future()
        self._under_way.add(over)
        try:
            yield
        finally:
            self._under_way.remove(over)
            over.set_result(None)

    async def over(self, timeout: float) -> bool:
        """Waits, up to that many seconds, for those that are under way. Returns False if there are none."""
        if not self._under_way:
            return False
        await asyncio.wait(self._under_way, timeout=timeout)
        return True

    async def ended(self, timeout: float) -> bool:
        """Waits as `over` does. Returns False if there are none, or if the time is over first."""
        if not self._under_way:
            return False
        _, others = await asyncio.wait(self._under_way, timeout=timeout)
        return not others
