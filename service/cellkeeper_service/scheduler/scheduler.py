"""The one loop: while a tick runs, requests queue; the next takes a slice of every ready session."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from cellkeeper_service.domain.engine import EngineLost
from cellkeeper_service.domain.store import Commit, Delete
from cellkeeper_service.errors import Reason, Rejection, device_failed
from cellkeeper_service.sessions.cohort import FrameColumns
from cellkeeper_service.sessions.requests import Request, Step
from cellkeeper_service.sessions.sessions import AnyFlight, Call, Sessions

from .entrance import Entrance
from .quickest import Quickest
from .store_calls import StoreCalls
from .strain import Strain

log = logging.getLogger(__name__)

INLINE_SECONDS = 0.002
"""An engine call that is expected to be shorter than this is made on the loop's thread: handing a small one to another
thread costs more than the call."""

EXPIRY_SECONDS = 0.05
"""How often waiting requests are looked through for passed deadlines. Nothing else waits for this."""


class Scheduler:
    def __init__(self, sessions: Sessions, store_calls: StoreCalls, cost: Callable[[Call], float]) -> None:
        """cost: the expected seconds of an engine call."""
        self.sessions = sessions
        self.store_calls = store_calls
        self.draining = False
        self._cost = cost
        self._wake = asyncio.Event()
        self._strain = Strain()
        self._entrance = Entrance()
        self._quickest = Quickest()
        self._engine_thread = ThreadPoolExecutor(1, "engine")
        self._task: asyncio.Task[None] | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._lost: EngineLost | None = None
        self._on_crash: Callable[[], None] = lambda: None

    def start(self, on_crash: Callable[[], None] = lambda: None) -> None:
        """Starts the loop's task. Call it from within the running event loop.

        on_crash: called if the loop ends by an error: nothing will be answered any more, and `drain` raises it. Also
        called, first, where an engine is lost: what waits is refused then, and what was computed is still committed.
        """
        self._on_crash = on_crash

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                if not isinstance(error, EngineLost):  # that has been logged
                    log.critical("the loop ended", exc_info=error)
                on_crash()

        self._task = asyncio.get_running_loop().create_task(self._run(), name="ticks")
        self._task.add_done_callback(ended)
        self._expire()

    @property
    def running(self) -> bool:
        """Requests are being answered."""
        return self._task is not None and not self._task.done()

    def admit(self, deadline: float) -> Rejection | None:
        """Why a call with that deadline is refused, if it is. To be asked before its message is read."""
        self._entrance.came()
        return self.refuse(1, deadline)

    def refuse(self, count: int, deadline: float) -> Rejection | None:
        """Why none of so many steps with that deadline would be taken, if so."""
        return self.sessions.refuse_many(count, deadline - self._quickest.seconds(time.monotonic()))

    def answered(self, came: float) -> None:
        """A call with steps, which came at that time, has its answer."""
        now = time.monotonic()
        self._quickest.took(now - came, now)

    def submit(self, request: Request) -> None:
        if self.draining:
            text = "the server is shutting down; another replica, or the next one here, will go on"
            request.done(Rejection(Reason.DRAINING, text, retry_delay_ms=100))
            return
        self.sessions.submit(request)
        self._wake.set()

    def submit_step(self, step: Step) -> None:
        """The same for a step that came by itself: most can go together."""
        if not self.draining and self.sessions.gather(step):
            self._wake.set()
        else:
            self.submit(step)

    def submit_columns(self, columns: FrameColumns) -> list[int]:
        """Takes those of a frame's items that can go the short way together. The others' numbers are returned."""
        if self.draining:
            return list(range(len(columns.sessions)))
        left = self.sessions.submit_columns(columns)
        self._wake.set()
        return left

    async def drain(self) -> None:
        """Takes no more requests, and returns when those that were taken have been answered."""
        self.draining = True
        self._wake.set()
        try:
            if self._task:
                await self._task
        finally:
            if self._expiry:
                self._expiry.cancel()
            self._engine_thread.shutdown(wait=False)

    async def _run(self) -> None:
        while not (self.draining and self.sessions.unanswered == 0):
            self._wake.clear()
            started = time.monotonic()
            self._start_store_calls()  # a store in memory does its work here
            calls = self.sessions.take_calls()
            for call in calls:
                await self._compute(call)
                self._start_store_calls()
            ended = time.monotonic()
            self._strain.worked(ended - started)
            if calls or self._wake.is_set() or self._can_start_more():
                await asyncio.sleep(0)
                if self._strain.high:
                    await self._entrance.let_in(ended - started)
            else:
                await self._wake.wait()
                self._strain.rested(time.monotonic() - ended)
        if self._lost is not None:
            raise self._lost

    def _can_start_more(self) -> bool:
        """Starting one thing can make another ready that was looked for before it; no event tells of that."""
        sessions, room = self.sessions, self.store_calls.has_room
        return (
            sessions.wants_call or (sessions.wants_load and room("load")) or (sessions.wants_flight and room("write"))
        )

    async def _compute(self, call: Call) -> None:
        if self._lost is not None:
            self.sessions.failed(call, device_failed(self._lost))
            return
        try:
            if self._cost(call) < INLINE_SECONDS:
                call.execute()
            else:
                loop = asyncio.get_running_loop()
                await loop.run_in_executor(self._engine_thread, call.execute)
        except EngineLost as error:
            log.critical("model %s: %s; this process ends", call.served.spec.name, error)
            self._lost, self.draining = error, True
            self.sessions.failed(call, device_failed(error))
            self._on_crash()
        except Exception:
            log.exception("engine call failed: model %s, batch %d", call.served.spec.name, call.batch)
            parts = self.sessions.parts_of(call)
            for part in parts:
                await self._compute(part)
            if not parts:
                self.sessions.failed(call)
        else:
            self.sessions.computed(call)

    def _start_store_calls(self) -> None:
        if self.store_calls.has_room("load"):
            lines, loads = self.sessions.take_loads()
            if loads:
                self.store_calls.load(loads, lambda results: self._arrived(self.sessions.loaded, lines, results))
        if self.store_calls.has_room("write"):
            self._start_writes(self.sessions.take_flights())

    def _start_writes(self, flights: list[AnyFlight]) -> None:
        writes = [flight for flight in flights if isinstance(flight.call, Commit)]
        erasures = [flight for flight in flights if isinstance(flight.call, Delete)]
        if writes:
            commits = [flight.call for flight in writes if isinstance(flight.call, Commit)]
            self.store_calls.commit(commits, lambda got: self._arrived(self.sessions.landed, writes, got))
        if erasures:
            deletes = [flight.call for flight in erasures if isinstance(flight.call, Delete)]
            self.store_calls.delete(deletes, lambda got: self._arrived(self.sessions.landed, erasures, got))

    def _arrived(self, digest: Callable[..., None], asked: object, results: object) -> None:
        digest(asked, results)
        self._wake.set()

    def _expire(self) -> None:
        self._expiry = asyncio.get_running_loop().call_later(EXPIRY_SECONDS, self._expire)
        self.sessions.expire()
        self._wake.set()  # what waited behind an expired request may start, and a drain may have its last reply
