"""Frames on their way.

Few are in flight at once: that is what makes frames large under load. Two, each with its share of what waits: while
one is at the server, the other is made, or its replies are handed out. One frame with everything in it would have
client, server and store wait for each other in turns. A frame that waits for a cold session would hold up the others,
so it ceases to count once a part of it was answered, or after a short while.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .._session.chunk import Chunk
from .._session.session_sender import Lane

FRAMES_IN_FLIGHT = 2
MOST_FRAMES_IN_FLIGHT = 48  # servers read 64 ahead by default
LEAST_ITEMS = 8  # are not shared out: a frame costs as much as some tens of its items
PATIENCE_SECONDS = 0.02


class Flight:
    """One frame. Its i-th item is chunks[i] of lanes[i]; chunks[i] is None once it was answered."""

    __slots__ = ("chunks", "frame_id", "heard", "lanes", "sent_at")

    def __init__(self, frame_id: int, sent_at: float, lanes: list[Lane], chunks: list[Chunk]) -> None:
        self.frame_id = frame_id
        self.sent_at = sent_at
        self.lanes = lanes
        self.chunks: list[Chunk | None] = list(chunks)
        self.heard = False  # a reply came, maybe of a part of it; or nobody waits for one any more

    def rest(self) -> list[tuple[Lane, Chunk]]:
        """What was not answered."""
        return [(lane, chunk) for lane, chunk in zip(self.lanes, self.chunks, strict=True) if chunk is not None]


class Flights:
    """Those of one stream. on_room: called when time, not a reply, made room for another one."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_room: Callable[[], None]) -> None:
        self._loop = loop
        self._on_room = on_room
        self._flights: dict[int, Flight] = {}
        self._unheard = 0  # nothing was heard of them, and they are young: these hold the next one back
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._flights)

    def room(self) -> bool:
        """Another frame may leave. If not, `on_room` or a reply will say when."""
        if len(self._flights) >= MOST_FRAMES_IN_FLIGHT:
            return False
        if self._unheard < FRAMES_IN_FLIGHT:
            return True
        if self._timer is None:
            self._timer = self._loop.call_later(PATIENCE_SECONDS, self._out_of_patience)
        return False

    def share(self, waiting: int) -> int:
        """How many of the waiting lanes the next frame takes, so that those that may leave with it are about equal."""
        left = FRAMES_IN_FLIGHT - self._unheard
        return max(LEAST_ITEMS, -(-waiting // left)) if left > 1 else waiting

    def add(self, flight: Flight) -> None:
        self._flights[flight.frame_id] = flight
        self._unheard += 1

    def heard(self, frame_id: int) -> Flight | None:
        """A reply came. None: nobody waits for it."""
        flight = self._flights.get(frame_id)
        if flight is not None and not flight.heard:
            flight.heard = True
            self._unheard -= 1
        return flight

    def landed(self, flight: Flight) -> None:
        """Its last reply came."""
        del self._flights[flight.frame_id]

    def take_all(self) -> list[Flight]:
        """The stream is lost, and they with it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        flights, self._flights, self._unheard = self._flights, {}, 0
        return list(flights.values())

    def _out_of_patience(self) -> None:
        self._timer = None
        limit = self._loop.time() - PATIENCE_SECONDS * 0.9
        for flight in self._flights.values():
            if not flight.heard and flight.sent_at <= limit:
                flight.heard = True
                self._unheard -= 1
        self._on_room()
