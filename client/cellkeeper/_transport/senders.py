"""Makes the senders of one client's sessions and groups."""

from __future__ import annotations

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
from .connection import Connection
from .group_routes import GroupRoutes
from .input_fields import layout_of
from .settings import ClientSettings

MAX_FORMATS = 256


class Senders:
    """Makes the senders, and ends them with the client."""

    def __init__(self, settings: ClientSettings, counters: Counters) -> None:
        self._settings = settings
        self._counters = counters
        # Past MAX_FORMATS, formats are made anew, which only makes frames smaller.
        self._frame_format = lru_cache(MAX_FORMATS)(FrameFormat)
        self._open: WeakSet[SessionSender | GroupSender] = WeakSet()

    def session(self, connection: Connection, session: str, model: Model, position: Position) -> SessionSender:
        """Returns the sender of a session at `position`."""
        return self._sender(connection, model, session, self._history(model, position))

    def group(self, connection: Connection, model: Model) -> GroupSender:
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
            new_sender=partial(self._sender, connection, model),
            routes=GroupRoutes(connection.endpoints),
            deadlines=connection.deadlines,
            loop=connection.loop,
        )
        self._open.add(sender)
        return sender

    def close(self, error: CellkeeperError) -> None:
        """Ends every waiting call with `error`."""
        for sender in list(self._open):
            sender.close(error)
        self._open.clear()

    def disown(self, error: CellkeeperError) -> None:
        """Makes every later use raise `error`."""
        for sender in list(self._open):
            sender.disown(error)

    def _sender(self, connection: Connection, model: Model, session: str, history: History) -> SessionSender:
        sender = SessionSender(
            session,
            history,
            frame_format=partial(self._frame_format, layout_of(model)),
            step_bytes=model.input.nbytes,
            dispatch=connection.endpoints.dispatch,
            deadlines=connection.deadlines,
            counters=self._counters,
            backoff=self._settings.backoff,
            loop=connection.loop,
        )
        self._open.add(sender)
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
