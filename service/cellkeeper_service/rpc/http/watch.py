"""Watches a session: sends what changed in it, a few times a second, whichever server changes it."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Any

from cellkeeper_service.core.requests import SessionReply
from cellkeeper_service.domain.position import Position
from cellkeeper_service.domain.record import SessionKey
from cellkeeper_service.errors import Reason, Rejection, internal_error, invalid
from cellkeeper_service.rpc import reading
from cellkeeper_service.rpc.answering import Decided
from cellkeeper_service.rpc.message_stream import MessageStream

from . import fields, replies
from .asked import Asked
from .session_log import Wanted, last_steps, outputs_asked

log = logging.getLogger(__name__)

MAX_HZ, DEFAULT_HZ = 10, 5
MAX_STEPS = 256
"""Time steps in one message. A viewer of a session that advances faster sees the last of them."""


@dataclass(frozen=True, slots=True)
class WatchAsked:
    """What to watch. hz: how often the record is read, at most. wanted: of each update."""

    model: str
    session: str
    hz: int
    wanted: Wanted


def watch_asked(asked: Asked) -> WatchAsked:
    """Reads the query of a watch. Raises a Rejection."""
    query = asked.query
    hz = fields.query(query, "hz", DEFAULT_HZ)
    if not 1 <= hz <= MAX_HZ:
        raise invalid("hz", hz, f"1 to {MAX_HZ}")
    if (states := query.get("states", "true")) not in ("true", "false"):
        raise invalid("states", repr(states), "true or false")
    names = query.get("outputs", "prediction")
    outputs, most = outputs_asked(names, asked)
    fits = asked.spec.state_bytes <= asked.catalog.limits.max_message_bytes
    if not names.strip(","):  # unlike in a step, where it means the default outputs
        outputs = frozenset()
    wanted = Wanted(outputs, states == "true" and fits, min(most, MAX_STEPS))
    return WatchAsked(asked.model, asked.session, hz, wanted)


class Watch(MessageStream[WatchAsked, dict[str, Any]]):
    """One open watch. Its first message says what to watch; there is no other.

    The record is read again only once the last update has been sent, so a client that reads slowly causes few reads.
    """

    _task: asyncio.Task[None] | None = None

    def announce_end(self) -> None:
        """Ends the watch; updates already sent remain true."""
        self.finish()

    def _abandon(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _submit(self, message: WatchAsked) -> None:
        key = self._caller.catalog.key(message.model, message.session)
        self._release()  # the message itself gets no reply
        watch = self._watch(key, message.hz, message.wanted)
        self._task = asyncio.get_running_loop().create_task(watch, name="watch")

    async def _watch(self, key: SessionKey, hz: int, wanted: Wanted) -> None:
        seen, told = None, ""
        while True:
            began = time.monotonic()
            why: Rejection | None = None
            try:
                found = await reading.read_session(self._core, key, self._until())
                if found.record.position != seen:
                    reached, update = await self._update(key, found, seen, wanted)
                    await self._send(update)
                    seen, told = reached, ""
            except Rejection as refused:
                why, seen = refused, None
            except Exception:
                log.exception("a session could not be watched")
                why = internal_error()
            if why is not None and why.reason.name != told:  # once, until the reason changes
                told = why.reason.name
                if not isinstance(why, Decided):
                    self._meter.rejected(why.reason.value)
                await self._send({"error": replies.rejection(why)})
            await asyncio.sleep(max(1 / hz - (time.monotonic() - began), 0))

    async def _update(
        self, key: SessionKey, found: SessionReply, seen: Position | None, wanted: Wanted
    ) -> tuple[Position, dict[str, Any]]:
        """Returns the position that the update reaches, and the update."""
        found, steps = await last_steps(self._core, self._caller, key, found, wanted, self._until(), seen)
        if isinstance(steps, Rejection):
            if steps.reason is Reason.STORE_UNAVAILABLE:
                raise steps
            steps = {"error": replies.rejection(steps)}  # the session's position is known all the same
        info = replies.session(reading.session_info(key.session, found.header, found.hot), key.model)
        return found.record.position, {**info, "log": replies.log_size(found.header), **steps}

    async def _send(self, update: dict[str, Any]) -> None:
        """Returns when the update has been sent."""
        self._unreplied += 1
        self._has_room.clear()
        self._reply(update)
        await self._has_room.wait()
