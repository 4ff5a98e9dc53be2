"""A caller that waits until every step before it is answered, and holds back the steps after it until it is done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..errors import CellkeeperError
from .group_history import Members
from .retry import EndpointStatus, no_answer_from
from .time_limit import within


class Hold:
    """Such a caller. It is in the queue of its sender's waiting calls from its beginning to its end.

    ready: done once every step before it is answered; has an error if that will not happen.
    """

    __slots__ = ("ready",)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.ready: asyncio.Future[None] = loop.create_future()

    async def wait(self, timeout: float, endpoint: Callable[[], EndpointStatus | None]) -> None:
        """Waits until every step before it is answered.

        timeout: seconds. endpoint: returns who should answer them. Raises DeadlineExceeded, and the error of `fail`.
        """
        if self.ready.done():
            return self.ready.result()
        try:
            await within(timeout, self.ready)
        except asyncio.TimeoutError:
            why = "earlier steps are still unanswered"
            raise no_answer_from(endpoint(), timeout, timeout, None, why) from None

    def grant(self) -> None:
        """Tells the caller that every step before it is answered."""
        if not self.ready.done():
            self.ready.set_result(None)

    def fail(self, error: CellkeeperError) -> None:
        """Tells the caller why the steps before it will not be answered."""
        if not self.ready.done():
            self.ready.set_exception(error)


class GroupHold(Hold):
    """One that concerns the steps of these members of a group."""

    __slots__ = ("members",)

    def __init__(self, loop: asyncio.AbstractEventLoop, members: Members) -> None:
        super().__init__(loop)
        self.members = members
