"""Calls to the store, a bounded number at a time: on threads, or begun and watched by the event loop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from cellkeeper_service.domain.meter import Meter, StoreCallName
from cellkeeper_service.domain.non_blocking import NonBlockingStore, PendingCommit, Stage
from cellkeeper_service.domain.record import Record, SessionKey
from cellkeeper_service.domain.store import Commit, CommitResult, Delete, Load, Page, Store, StoreError, StoreLost
from cellkeeper_service.errors import Reason, Rejection

from .non_blocking_calls import NonBlockingCalls
from .store_results import LOADED, WRITTEN, ResultKind, check_results

log = logging.getLogger(__name__)

MAX_SCANS = 2
RECENT_SECONDS = 0.5  # an answer this recent shows that the store is reachable
NO_SESSION = SessionKey("", "", "probe")  # no model has an empty name
SCAN_RETRY_MS = 200


@dataclass(slots=True, eq=False)
class _Call:
    """A call under way. deliver: takes its results, one for each item."""

    name: StoreCallName
    kind: ResultKind
    items: int
    deliver: Callable[[list[Any]], None]
    started: float

    def unanswered(self, error: Exception) -> list[Any]:
        return self.kind.unknown(f"{type(error).__name__}: {error}", self.items)


class StoreCalls:
    """Delivers results on the loop's thread, one for each item. If the store breaks its contract, by an exception or by
    what it returns, the call counts as unanswered."""

    def __init__(self, store: Store, threads: int, meter: Meter) -> None:
        """threads: the maximum number of calls under way; 0: every call runs at once, on the loop's thread (for a store
        that lives in memory)."""
        self.store = store
        self._meter = meter
        self._limit = max(threads // 2, 1)
        # one thread for every call that may be under way, so that no call queues behind another
        self._pool = ThreadPoolExecutor(2 * self._limit + 2 + MAX_SCANS, "store") if threads else None
        self._begin = store.begin_commit if threads and isinstance(store, NonBlockingStore) else None
        self._non_blocking = NonBlockingCalls()
        self._under_way = {"load": 0, "write": 0, "scan": 0}
        self._answered = float("-inf")  # monotonic time of the last answer
        self._probe: asyncio.Future[str] | None = None

    def has_room(self, call: str) -> bool:
        """Loads and writes each get half of the threads, so that neither starves the other. Room for a write is room
        for a commit and a delete together."""
        return self._under_way[call] < self._limit

    @property
    def any_under_way(self) -> bool:
        return any(self._under_way.values())

    def load(self, loads: Sequence[Load], deliver: Callable[[list[Record | StoreError | None]], None]) -> None:
        self._make(self._call("load", LOADED, len(loads), deliver), partial(self.store.load_many, loads))

    def commit(
        self, commits: Sequence[Commit], deliver: Callable[[list[CommitResult]], None], *, at_once: bool = False
    ) -> None:
        """at_once: the answer is expected at once, and little else waits for the event loop."""
        call = self._call("commit", WRITTEN, len(commits), deliver)
        try:
            pending = self._begin(commits) if self._begin else None
        except Exception as error:
            log.exception("the store could not begin a commit")
            self._end(call, call.unanswered(error))
            return
        if pending is None:
            self._make(call, partial(self.store.commit_many, commits))
        else:
            self._non_blocking.watch(pending, partial(self._waited, call), at_once=at_once)

    def delete(self, deletes: Sequence[Delete], deliver: Callable[[list[CommitResult]], None]) -> None:
        call = self._call("delete", WRITTEN, len(deletes), deliver)
        self._make(call, partial(self.store.delete_many, deletes))

    async def scan(self, tenant: str, model: str, prefix: str, cursor: str, limit: int) -> Page:
        """Like the store's. Raises StoreError and ValueError, and a Rejection while too many are under way."""
        if self._under_way["scan"] >= MAX_SCANS:
            text = f"{MAX_SCANS} listings are in progress, the maximum"
            raise Rejection(Reason.QUEUE_FULL, text, retry_delay_ms=SCAN_RETRY_MS)
        call = partial(self.store.scan, tenant, model, prefix, cursor, limit)
        started, failed, listed = time.monotonic(), True, 0
        try:
            page = await self._scan(call)
            failed, listed = False, len(page.sessions)
            return page
        except StoreError as error:
            _log_failure("scan", str(error))
            raise
        finally:
            self._meter.store_call("scan", listed, time.monotonic() - started, failed)

    async def reach(self) -> str:
        """Returns why the store cannot be used; empty: it can. Asks the store only without a recent answer."""
        if time.monotonic() - self._answered < RECENT_SECONDS:
            return ""
        if self._probe is None or self._probe.done():  # one probe for all who ask at the same time
            self._probe = asyncio.get_running_loop().create_future()
            deliver = partial(_tell, self._probe)
            if self._under_way["load"] <= self._limit:  # a probe may take one thread more than loads do
                call = self._call("probe", LOADED, 1, deliver)
                self._make(call, partial(self.store.load_many, [Load(NO_SESSION, False)]))
            else:
                deliver([StoreError("it has not answered earlier requests")])
        return await asyncio.shield(self._probe)

    def close(self) -> None:
        """Waits for the calls under way on threads, and gives up the commits that are pending."""
        self._non_blocking.close()
        if self._pool:
            self._pool.shutdown()

    async def _scan(self, call: Callable[[], Page]) -> Page:
        if self._pool is None:
            return call()

        def ended(future: asyncio.Future[Page]) -> None:
            self._under_way["scan"] -= 1
            if not future.cancelled():
                future.exception()  # retrieved, even if the caller is gone

        self._under_way["scan"] += 1
        future = asyncio.get_running_loop().run_in_executor(self._pool, call)
        future.add_done_callback(ended)
        return await asyncio.shield(future)  # the store finishes its work if the caller goes away

    def _call(self, name: StoreCallName, kind: ResultKind, items: int, deliver: Callable[[list[Any]], None]) -> _Call:
        """Starts the account of a call; `_end` closes it."""
        self._under_way[kind.name] += 1
        return _Call(name, kind, items, deliver, time.monotonic())

    def _make(self, call: _Call, make: Callable[[], list[Any]]) -> None:
        if self._pool is None:
            self._finish(call, make)
        else:
            future = asyncio.get_running_loop().run_in_executor(self._pool, make)
            future.add_done_callback(lambda done: self._finish(call, done.result))

    def _waited(self, call: _Call, pending: PendingCommit) -> None:
        """The event loop has nothing more to wait for."""
        try:
            finish = self._make if pending.stage is Stage.BLOCKED else self._finish
        except Exception as error:
            log.exception("the store could not finish a commit")
            self._end(call, call.unanswered(error))
        else:
            finish(call, pending.finish)

    def _finish(self, call: _Call, answer: Callable[[], list[Any]]) -> None:
        """answer: returns what the store returned, or raises what it raised."""
        try:
            results = answer()
        except Exception as error:
            log.exception("the store failed where it should not")
            self._end(call, call.unanswered(error))
        else:
            self._end(call, results)

    def _end(self, call: _Call, answer: list[Any]) -> None:
        self._under_way[call.kind.name] -= 1
        results, why_failed = check_results(answer, call.items, call.kind)
        # a failure is later news than a success, so the next probe asks the store
        self._answered = float("-inf") if why_failed else time.monotonic()
        self._meter.store_call(call.name, call.items, time.monotonic() - call.started, bool(why_failed))
        if why_failed:
            _log_failure(call.name, why_failed)
        call.deliver(results)


def _log_failure(call: StoreCallName, why: str) -> None:
    """Logs why the store failed. Nothing else does: refusals of a frame's items, which most clients send, are not
    logged."""
    log.warning("the store failed: %s", why, extra={"fields": {"call": call}})


def _tell(probe: asyncio.Future[str], results: list[Record | StoreError | None]) -> None:
    (result,) = results
    if probe.done():
        return
    if isinstance(result, StoreLost):
        probe.set_result(f"the store is lost: {result}")
    else:
        probe.set_result(f"the store cannot be used: {result}" if isinstance(result, StoreError) else "")
