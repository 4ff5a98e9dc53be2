"""The frames in flight on one stream.

Few frames are in flight at once, which makes them large under load. There are two, each with its share of the waiting
senders: while one is at the server, the client builds the other or delivers its replies. With a single frame, client,
server and store would take turns waiting for each other. A frame that waits for a cold session would delay the others,
so it no longer counts once a part of it is answered, or after ANSWER_WAIT_SECONDS.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from ..errors import CellkeeperError

FRAMES_IN_FLIGHT = 2
MOST_FRAMES_IN_FLIGHT = 48  # servers read 64 ahead by default
LEAST_ITEMS = 8  # not split further: a frame costs as much as some tens of its items
ANSWER_WAIT_SECONDS = 0.02


class InflightFrame(Protocol):
    """One frame. heard: a reply to some of it arrived, or it is older than ANSWER_WAIT_SECONDS. unanswered: how many of
    its items have no answer."""

    frame_id: int
    unanswered: int
    sent_at: float
    heard: bool

    def deliver(self, reply: Any) -> None:
        """Delivers the items that succeeded. Raises ServerError if the columns do not match."""

    def refuse(self, item: int, error: CellkeeperError) -> None:
        """Fails the item that the server refused. Raises ServerError if the frame has no such item."""

    def refuse_rest(self, error: CellkeeperError) -> None:
        """Fails every unanswered item with `error`, with which the server refused the frame."""

    def lost(self, error: CellkeeperError, was_read: bool) -> None:
        """Fails every unanswered item with `error`, with which the stream ended. was_read: the frame may have been."""


class InflightFrames:
    """The frames in flight on one stream.

    on_room: called when another frame may be sent because time has passed, not because of a reply.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, on_room: Callable[[], None]) -> None:
        self._loop = loop
        self._on_room = on_room
        self._inflight: dict[int, InflightFrame] = {}
        self._unanswered = 0  # recent frames without any reply: the next frame waits for these
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._inflight)

    def room(self) -> bool:
        """Returns True if another frame may be sent. If not, `on_room` is called or a reply arrives once it may."""
        if len(self._inflight) >= MOST_FRAMES_IN_FLIGHT:
            return False
        if self._unanswered < FRAMES_IN_FLIGHT:
            return True
        if self._timer is None:
            self._timer = self._loop.call_later(ANSWER_WAIT_SECONDS, self._stop_waiting)
        return False

    def share(self, waiting: int) -> int:
        """Returns how many of the waiting senders go into the next frame: frames that may be sent get equal shares."""
        left = FRAMES_IN_FLIGHT - self._unanswered
        return max(LEAST_ITEMS, -(-waiting // left)) if left > 1 else waiting

    def add(self, sent: InflightFrame) -> None:
        self._inflight[sent.frame_id] = sent
        self._unanswered += 1

    def heard(self, frame_id: int) -> InflightFrame | None:
        """Records that a reply arrived. Returns its frame; None if that is not in flight."""
        sent = self._inflight.get(frame_id)
        if sent is not None and not sent.heard:
            sent.heard = True
            self._unanswered -= 1
        return sent

    def remove(self, sent: InflightFrame) -> None:
        """Removes a frame whose last reply arrived."""
        del self._inflight[sent.frame_id]

    def take_all(self) -> list[InflightFrame]:
        """Removes and returns all frames, when the stream is lost."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        inflight, self._inflight, self._unanswered = self._inflight, {}, 0
        return list(inflight.values())

    def _stop_waiting(self) -> None:
        self._timer = None
        limit = self._loop.time() - ANSWER_WAIT_SECONDS * 0.9
        for sent in self._inflight.values():
            if not sent.heard and sent.sent_at <= limit:
                sent.heard = True
                self._unanswered -= 1
        self._on_room()
