"""A client's connections, in the event loop that it belongs to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .._session.deadlines import Deadlines
from ..errors import CellkeeperError
from ..types import Counters
from .calls import Calls
from .closing import Closing
from .endpoint import Endpoint
from .endpoints import Endpoints
from .poller import ignore_poller_errors
from .send_queue import Sendable
from .settings import ClientSettings


class Connection:
    """All connections of a client, made in the running event loop when the client is first used.

    loop: that event loop. endpoints: for steps. calls: for everything else. closing: ends these calls. deadlines: of
    waiting calls.
    """

    def __init__(self, settings: ClientSettings, counters: Counters) -> None:
        self.loop = asyncio.get_running_loop()
        ignore_poller_errors(self.loop)
        self._settings = settings
        self._counters = counters
        self.closing = Closing()
        self.endpoints = Endpoints(settings.targets, self._endpoint)
        self.calls = Calls(
            self.endpoints,
            attempt_timeout=settings.attempt_timeout,
            connect_timeout=settings.connect_timeout,
            backoff=settings.backoff,
            counters=counters,
            token=settings.token,
            closing=self.closing,
        )
        self.deadlines = Deadlines(self.loop)

    async def close(self, error: CellkeeperError) -> None:
        """Ends the calls that wait with `error`, and the connections."""
        self.closing.close(error)
        self.deadlines.close()
        await self.endpoints.close()

    def _endpoint(
        self,
        target: str,
        redispatch: Callable[[Endpoint, list[Sendable]], None],
        on_up: Callable[[Endpoint], None],
    ) -> Endpoint:
        settings = self._settings
        return Endpoint(
            target,
            max_frame_items=settings.max_frame_items,
            default_timeout=settings.timeout,
            attempt_timeout=settings.attempt_timeout,
            backoff=settings.backoff,
            counters=self._counters,
            credentials=settings.credentials,
            channel_options=settings.channel_options,
            token=settings.token,
            websocket=settings.websocket_of(target),
            redispatch=redispatch,
            on_up=on_up,
        )
