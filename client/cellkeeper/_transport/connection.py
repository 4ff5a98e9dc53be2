"""A client's connections, in the event loop that it belongs to."""

from __future__ import annotations

import asyncio

from .._session.deadlines import Deadlines
from ..errors import CellkeeperError
from ..types import Counters
from .calls import Calls
from .closing import Closing
from .endpoints import Endpoints
from .poller import ignore_poller_errors
from .settings import ClientSettings


class Connection:
    """All connections of a client, made in the running event loop when the client is first used.

    loop: that event loop. endpoints: for steps. calls: for everything else. closing: ends these calls. deadlines: of
    waiting calls.
    """

    def __init__(self, settings: ClientSettings, counters: Counters) -> None:
        self.loop = asyncio.get_running_loop()
        ignore_poller_errors(self.loop)
        self.closing = Closing()
        self.endpoints = Endpoints(settings, counters)
        self.calls = Calls(self.endpoints, settings, counters, self.closing)
        self.deadlines = Deadlines(self.loop)

    async def close(self, error: CellkeeperError) -> None:
        """Ends the calls that wait with `error`, and the connections."""
        self.closing.close(error)
        self.deadlines.close()
        await self.endpoints.close()
