"""What the senders of sessions and of groups have in common."""

from __future__ import annotations

import asyncio
from copy import copy

from ..errors import CellkeeperError
from .deadlines import NEVER
from .event_loop import check_loop


class Sender:
    """A sender belongs to one event loop, and ends with an error that every later use raises.

    next_deadline: see Expiring.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.next_deadline = NEVER
        self._closed: CellkeeperError | None = None

    @property
    def closed(self) -> bool:
        return self._closed is not None

    def check(self) -> None:
        """Raises WrongEventLoop, or the error it was closed with."""
        if self._closed is not None:
            raise copy(self._closed)
        check_loop(self.loop)

    def disown(self, error: CellkeeperError) -> None:
        """Makes every later use raise `error`. Leaves its event loop alone, which is closed or another process's."""
        self._closed = error
