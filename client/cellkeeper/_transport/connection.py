"""A client's connections, in the event loop that it belongs to, and the senders that use them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from weakref import WeakSet

from .._session.chunk import Chunk
from .._session.frame_format import FrameFormat
from .._session.group_history import GroupHistory
from .._session.group_sender import GroupSender
from .._session.history import History
from .._session.session_sender import SessionSender
from ..errors import CellkeeperError
from ..position import Position
from ..types import Counters, Model
from .calls import Calls
from .closing import Closing
from .endpoints import Endpoints
from .group_routes import GroupRoutes
from .poller import ignore_poller_errors
from .requests import layout_of
from .settings import ClientSettings

MAX_FORMATS = 256


class Connection:
    """All connections of a client, made in the running event loop when the client is first used.

    loop: that event loop. endpoints: for steps. calls: for everything else. closing: ends these calls. It makes the
    senders of the client's sessions and groups, and ends them with the client.
    """

    def __init__(self, settings: ClientSettings, counters: Counters) -> None:
        self.loop = asyncio.get_running_loop()
        ignore_poller_errors(self.loop)
        self.closing = Closing()
        self.endpoints = Endpoints(settings, counters)
        self.calls = Calls(self.endpoints, settings, counters, self.closing)
        self._settings = settings
        self._counters = counters
        # Past MAX_FORMATS, formats are made anew, which only makes frames smaller.
        self._frame_format = lru_cache(MAX_FORMATS)(FrameFormat)
        self._senders: WeakSet[SessionSender | GroupSender] = WeakSet()

    def session_sender(self, session: str, model: Model, position: Position) -> SessionSender:
        """Returns the sender of a session at `position`."""
        return self._session_sender(model, session, self._history(model, position))

    def group_sender(self, model: Model) -> GroupSender:
        """Returns the sender of a group without members, whose sessions belong to `model`."""
        history = GroupHistory(
            partial(self._history, model),
            step_bytes=model.input.nbytes,
            buffer_steps=self._settings.buffer_steps,
            buffer_bytes=self._settings.buffer_bytes,
        )
        sender = GroupSender(
            history,
            frame_format=partial(self._frame_format, layout_of(model)),
            new_sender=partial(self._session_sender, model),
            routes=GroupRoutes(self.endpoints),
            loop=self.loop,
        )
        self._senders.add(sender)
        return sender

    async def close(self, error: CellkeeperError) -> None:
        """Ends the steps and calls that wait with `error`, and the connections."""
        for sender in list(self._senders):
            sender.close(error)
        self._senders.clear()
        self.closing.close(error)
        await self.endpoints.close()

    def disown(self, error: CellkeeperError) -> None:
        """Makes every later use of a sender raise `error`."""
        for sender in list(self._senders):
            sender.disown(error)

    def _session_sender(self, model: Model, session: str, history: History) -> SessionSender:
        sender = SessionSender(
            session,
            history,
            frame_format=partial(self._frame_format, layout_of(model)),
            step_bytes=model.input.nbytes,
            dispatch=self.endpoints.dispatch,
            counters=self._counters,
            backoff=self._settings.backoff,
            loop=self.loop,
        )
        self._senders.add(sender)
        return sender

    def _history(
        self, model: Model, position: Position, earlier: Callable[[], Iterable[Chunk]] | None = None
    ) -> History:
        return History(
            position,
            step_bytes=model.input.nbytes,
            window_steps=self._settings.window_steps_for(model.max_log_steps),
            buffer_steps=self._settings.buffer_steps,
            buffer_bytes=self._settings.buffer_bytes,
            earlier=earlier,
        )
