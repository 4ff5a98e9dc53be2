"""Takes what gRPC has completed to the event loop. See docs/adr/456."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from queue import SimpleQueue
from threading import Thread

from . import grpc_core
from .grpc_core import Event, Quiet

log = logging.getLogger(__name__)

MOST_EVENTS = 64
"""How many events a turn of the loop handles, so that a flood of calls does not hold up everything else."""
BURST_EVENTS = 2
"""More events than this, taken by the loop before there were none, are a burst."""
TRIED_EVENTS = 32
"""After how many events outside of bursts the next one is treated as the first of a burst, to see if it is."""
ARRIVAL_SECONDS, ARRIVAL_WAITS = 0.005, 2
"""When so many waits of this length have brought no event, all that had arrived before a stop is read. (One shows
little: on a busy machine the thread may sleep through the whole of it before gRPC looks at a socket.)"""
LONGEST_ARRIVAL_SECONDS = 0.1
"""A stop does not wait longer for that: clients may go on sending."""


class CompletionQueue:
    """Handles each event by its tag: on the loop, in the order of completion, or where it is taken if it is `Quiet`.

    A thread waits for events, because only a thread can, and passes them to the loop. For an event now and then that is
    the cheapest way. In a burst, thread and loop would contend for the interpreter's lock at each event. There the
    thread passes one event and rests, until the loop, which takes the others itself, turn by turn, finds none.
    """

    def __init__(self) -> None:
        """Must be created on the event loop."""
        self.core = grpc_core.new_queue()
        self._loop = asyncio.get_running_loop()
        self._passed: deque[Event] = deque()  # by the thread, to the loop
        self._is_scheduled = False  # `_take`
        self._in_burst = False
        self._thread_rests = False  # until it gets a token from `_go_on`
        self._go_on: SimpleQueue[None] = SimpleQueue()
        self._count = 0  # events of this burst; outside of bursts, since the last one
        self._thread = Thread(target=self._wait, name="grpc", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """Ends the thread. Every operation must have completed."""
        self.core.shutdown()
        await self._loop.run_in_executor(None, self._thread.join)

    def take_more(self) -> None:
        """Handles what has completed by now, if the loop need not wait for the thread."""
        if self._thread_rests and not self._passed:
            self._count += self._take_completed(MOST_EVENTS)

    def take_arrived(self) -> None:
        """Handles all that has arrived, if the thread rests; otherwise the thread has read it.

        While it rests, and the loop does something else, gRPC reads no sockets (docs/adr/457).
        """
        if not self._thread_rests:
            return
        until = time.monotonic() + LONGEST_ARRIVAL_SECONDS
        waits = 0
        while waits < ARRIVAL_WAITS and time.monotonic() < until:
            while self._passed:
                _finish(self._passed.popleft())
            event = self.core.poll(time.time() + ARRIVAL_SECONDS)
            if not grpc_core.is_event(event):
                waits += 1
            elif not _is_done(event):
                _finish(event)

    def _wait(self) -> None:
        while grpc_core.is_event(event := self.core.poll()):
            if _is_done(event):
                del event  # an event that outlives its call keeps the server from being released
                continue
            self._passed.append(event)
            del event
            rests = self._thread_rests = self._in_burst
            if not self._is_scheduled:
                self._is_scheduled = True
                try:
                    self._loop.call_soon_threadsafe(self._take)
                except RuntimeError:  # the loop has ended
                    return
            if rests:
                self._go_on.get()

    def _take(self) -> None:
        thread_rests = self._thread_rests  # looked at first: what such a thread has passed comes before the rest
        taken = 0
        while self._passed and taken < MOST_EVENTS:
            _finish(self._passed.popleft())
            taken += 1
        if thread_rests:
            taken += self._take_completed(MOST_EVENTS - taken)
        self._count += taken
        if thread_rests and taken:
            self._loop.call_soon(self._take)  # what these events caused may have completed by then
            return
        if thread_rests:
            self._in_burst = self._count > BURST_EVENTS
            self._count = 0
            self._thread_rests = False
            self._go_on.put(None)
        elif self._count >= TRIED_EVENTS:
            self._in_burst, self._count = True, 0
        self._is_scheduled = False
        if self._passed or self._thread_rests:  # by a thread that saw `_take` scheduled, after this one had looked
            self._is_scheduled = True
            self._loop.call_soon(self._take)

    def _take_completed(self, most: int) -> int:
        """Returns how many events it has handled."""
        for taken in range(most):
            event = self.core.poll(0.0)
            if not grpc_core.is_event(event):
                return taken
            if not _is_done(event):
                _finish(event)
        return most


def _is_done(event: Event) -> bool:
    """Handles what may be handled on any thread. Returns False if the event is for the loop."""
    try:
        return isinstance(event.tag, Quiet) and event.tag.handle(event)
    except Exception:
        log.exception("an event of a call failed")
        return True


def _finish(event: Event) -> None:
    """Handles, on the loop, what `_is_done` has left."""
    tag = event.tag
    try:
        (tag.on_loop if isinstance(tag, Quiet) else tag)(event)
    except Exception:
        log.exception("an event of a call failed")
