"""The loop: drives the core, computes each tick's batches, and sends loads and commits to the store.

While a batch is computed, requests queue; the next tick takes a slice of every ready session.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import Any

from cellkeeper_service.domain.engine import EngineLost
from cellkeeper_service.domain.record import Record, SessionKey
from cellkeeper_service.domain.store import CommitResult, Delete, StoreError
from cellkeeper_service.errors import Reason, Rejection, device_failed

from .batch import Batch
from .core import Core
from .loop_share import LoopShare
from .requests import Done, Request, Step
from .session import InflightCommit, SessionState
from .store_calls import StoreCalls

log = logging.getLogger(__name__)
DONE = attrgetter("done")

INLINE_SECONDS = 0.002
"""A batch that is expected to take less runs on the loop's thread: handing it to another thread would cost
more than the batch."""

FEW_REQUESTS = 4
"""While no more are unanswered, the loop polls for a commit's answer: a nearby store gives it at once, and hardly any
request is about to arrive meanwhile."""

EXPIRY_SECONDS = 0.05
"""How often waiting requests are checked for passed deadlines. Nothing else depends on it."""


class CoreLoop:
    """Drives one core from an asyncio event loop. Call all of it from that loop's thread."""

    def __init__(self, core: Core, store_calls: StoreCalls, cost: Callable[[Batch], float]) -> None:
        """cost: returns the expected seconds of a batch."""
        self.core = core
        self.store_calls = store_calls
        self.draining = False
        self._cost = cost
        self._wake = asyncio.Event()
        self._share = LoopShare()
        self._engine_thread = ThreadPoolExecutor(1, "engine")
        self._task: asyncio.Task[None] | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._lost: EngineLost | None = None
        self._on_crash: Callable[[], None] = lambda: None

    def start(self, on_crash: Callable[[], None] = lambda: None) -> None:
        """Starts the loop's task. Call it from within the running event loop.

        on_crash: called if an error ends the loop: nothing is answered any more, and `drain` raises the error. If an
        engine is lost, it is called first: waiting requests are then refused, and computed ones are still committed.
        """
        self._on_crash = on_crash

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                if not isinstance(error, EngineLost):  # that has been logged
                    log.critical("the loop ended", exc_info=error)
                on_crash()

        self._task = asyncio.get_running_loop().create_task(self._run(), name="core loop")
        self._task.add_done_callback(ended)
        self._expire()

    @property
    def running(self) -> bool:
        """Whether requests are being answered."""
        return self._task is not None and not self._task.done()

    def admit(self, deadline: float) -> Rejection | None:
        """Returns why a call with that deadline is refused, or None. Ask before reading its message."""
        self._share.call_came()
        return self.refuse(1, deadline)

    def refuse(self, count: int, deadline: float) -> Rejection | None:
        """Returns why none of so many steps with that deadline would be admitted, or None."""
        return self.core.refuse(count, deadline)

    def answered(self, came: float) -> None:
        """Notes that a call with steps, which arrived at that time, was answered."""
        self.core.answered(came)

    def is_cached(self, key: SessionKey) -> bool:
        return self.core.is_cached(key)

    def submit(self, request: Request) -> None:
        self._share.submitted(request.key)
        self.submit_many((request,))

    def submit_many(self, requests: Iterable[Request]) -> None:
        """Submits requests that arrived together. Each `done` is called with its request once that has its result."""
        if self.draining:
            text = "the server is shutting down; retry on another replica, or here later"
            why = Rejection(Reason.DRAINING, text, retry_delay_ms=100)
            for request in requests:
                request.result = why
                tell(request.done, [request])
            return
        self.core.submit_many(requests)
        self._submitted()

    def submit_alike(self, steps: Sequence[Step]) -> None:
        """Submits single steps of different sessions that want the same outputs by the same deadline."""
        if self.draining:
            self.submit_many(steps)
        else:
            self.core.submit_alike(steps)
            self._submitted()

    def _submitted(self) -> None:
        self._deliver()  # refusals, at once: a long batch may delay the loop's next turn
        self._wake.set()

    async def drain(self) -> None:
        """Refuses new requests, and returns once all others have been answered."""
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
        core, share, wake = self.core, self._share, self._wake
        tick = 0.0
        while not (self.draining and core.unanswered == 0):
            await share.let_in(tick, core.unanswered)
            wake.clear()
            started = time.monotonic()
            batches = core.schedule()
            self._start_store_calls()  # a store in memory answers here
            for batch in batches:
                await self._compute(batch)
                self._start_store_calls()
            self._deliver()
            ended = time.monotonic()
            tick, idle = ended - started, 0.0
            if wake.is_set() or self._can_start_more():
                await asyncio.sleep(0)
            else:
                await wake.wait()
                idle = time.monotonic() - ended
            share.turned(tick, idle)
        self._deliver()  # an event between two ticks may have finished the last requests
        if self._lost is not None:
            raise self._lost

    def _can_start_more(self) -> bool:
        """Whether a start has made something else ready that was checked before it; no event reports that."""
        core, has_room = self.core, self.store_calls.has_room
        return core.has_work or (core.wants_load and has_room("load")) or (core.wants_commit and has_room("write"))

    async def _compute(self, batch: Batch) -> None:
        if self._lost is not None:
            self.core.on_failed(batch, device_failed(self._lost))
            return
        try:
            if self._cost(batch) < INLINE_SECONDS:
                batch.execute()
            else:
                await asyncio.get_running_loop().run_in_executor(self._engine_thread, batch.execute)
        except EngineLost as error:
            log.critical("model %s: %s; this process ends", batch.version.spec.name, error)
            self._lost, self.draining = error, True
            self.core.on_failed(batch, device_failed(error))
            self._on_crash()
        except Exception:
            log.exception("the engine failed: model %s, batch of %d", batch.version.spec.name, len(batch))
            for half in self.core.on_failed(batch):
                await self._compute(half)
        else:
            self.core.on_computed(batch)

    def _start_store_calls(self) -> None:
        core, calls = self.core, self.store_calls
        if core.wants_load and calls.has_room("load"):
            sessions, loads = core.take_loads()
            if loads:
                calls.load(loads, partial(self._loaded, sessions))
        if core.wants_commit and calls.has_room("write"):
            self._commit(core.take_commits())

    def _commit(self, commits: list[InflightCommit]) -> None:
        deletes = [one for one in commits if isinstance(one.call, Delete)]
        if deletes:
            commits = [one for one in commits if not isinstance(one.call, Delete)]
            calls: list[Any] = [one.call for one in deletes]
            self.store_calls.delete(calls, partial(self._committed, deletes))
        if commits:
            few = self.core.unanswered <= FEW_REQUESTS
            calls = [one.call for one in commits]
            self.store_calls.commit(calls, partial(self._committed, commits), at_once=few)

    def _loaded(self, sessions: list[SessionState], results: list[Record | StoreError | None]) -> None:
        self.core.on_loaded(sessions, results)
        self._store_answered()

    def _committed(self, commits: list[InflightCommit], results: list[CommitResult]) -> None:
        self.core.on_committed(commits, results)
        self._deliver()  # before the tick ends: replies leave while the next batch is computed
        self._store_answered()

    def _store_answered(self) -> None:
        """Wakes the loop only if there is work: an empty turn would cost a single session a fifth of its step."""
        if self.draining or self._can_start_more():
            self._wake.set()

    def _deliver(self) -> None:
        if finished := self.core.take_finished():
            self._share.answered(finished)
            for done, requests in groupby(finished, DONE):
                tell(done, list(requests))

    def _expire(self) -> None:
        self._expiry = asyncio.get_running_loop().call_later(EXPIRY_SECONDS, self._expire)
        self.core.expire()
        self._deliver()
        self._wake.set()  # requests behind an expired one may start, and a drain may have its last reply


def tell(done: Done, requests: Sequence[Request]) -> None:
    """Tells a caller the results of its requests. A failure affects only this caller."""
    try:
        done(requests)
    except Exception:
        log.exception("internal error: a request's caller could not be told of its result")
