"""Takes what gRPC has completed to the event loop. See docs/adr/456."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from queue import SimpleQueue
from threading import Thread

from . import grpc_core
from .grpc_core import Done, Event, Quiet

log = logging.getLogger(__name__)

MOST_EVENTS = 64
"""How many events one turn of the loop handles, so that a flood of calls does not hold up everything else."""
BURST_EVENTS = 2
"""More events than this, taken by the loop before there were none, are a burst."""
TRIED_EVENTS = 32
"""After how many events outside of bursts the loop tries whether there are bursts now."""


class CompletionQueue:
    """Calls each event's tag, in the order of completion: `Quiet.done` on any thread, everything else on the loop.

    A thread waits for events, because only a thread can, and passes them to the loop. For an event now and then that is
    the cheapest way. In a burst, thread and loop would contend for the interpreter's lock at each event. There the
    thread rests after the first one until the loop, which takes the others itself, turn by turn, finds none.
    """

    def __init__(self) -> None:
        """Must be created on the event loop."""
        self.core = grpc_core.new_queue()
        self._loop = asyncio.get_running_loop()
        self._passed: deque[tuple[Done, Event]] = deque()
        self._is_scheduled = False  # `_take`
        self._bursts = False
        self._thread_rests = False
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
        if self._thread_rests:
            self._count += self._take_passed()  # they completed before the others
            self._count += self._take_completed(MOST_EVENTS)

    def _wait(self) -> None:
        while grpc_core.is_event(event := self.core.poll()):
            left = _left_to_do(event)
            if left is None:
                del event  # an event that outlives its call keeps the server from being released
                continue
            self._passed.append((left, event))
            del left, event
            rests = self._thread_rests = self._bursts
            if not self._is_scheduled:
                self._is_scheduled = True
                try:
                    self._loop.call_soon_threadsafe(self._take)
                except RuntimeError:  # the loop has ended
                    return
            if rests:
                self._go_on.get()

    def _take(self) -> None:
        taken = self._take_passed()
        if self._thread_rests:
            taken += self._take_completed(MOST_EVENTS - taken)
            self._count += taken
            if taken:
                self._loop.call_soon(self._take)  # what these events caused may have completed by then
                return
            self._bursts = self._count > BURST_EVENTS
            self._count = 0
            self._thread_rests = False
            self._go_on.put(None)
        else:
            self._count += taken
            if self._count >= TRIED_EVENTS:
                self._bursts, self._count = True, 0
        self._is_scheduled = False
        if self._passed or self._thread_rests:  # since the loop looked, and `_take` seemed scheduled to the thread
            self._is_scheduled = True
            self._loop.call_soon(self._take)

    def _take_passed(self) -> int:
        """Returns how many events it has handled."""
        taken = 0
        while self._passed:
            _do(*self._passed.popleft())
            taken += 1
        return taken

    def _take_completed(self, most: int) -> int:
        """Returns how many events it has handled."""
        for taken in range(most):
            event = self.core.poll(0.0)
            if not grpc_core.is_event(event):
                return taken
            left = _left_to_do(event)
            if left is not None:
                _do(left, event)
            del event, left
        return most


def _left_to_do(event: Event) -> Done | None:
    """Returns what remains for the loop to do, or None."""
    tag = event.tag
    if not isinstance(tag, Quiet):
        done: Done = tag
        return done
    try:
        return None if tag.done(event) else tag.awaited
    except Exception:
        log.exception("an event of a call failed")
        return None


def _do(left: Done, event: Event) -> None:
    try:
        left(event)
    except Exception:
        log.exception("an event of a call failed")
