"""Calls to the store, a bounded number of them under way: on threads, or begun and watched by the loop itself."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from cellkeeper_service.domain.meter import Meter
from cellkeeper_service.domain.non_blocking import NonBlockingStore, PendingCommit, Stage
from cellkeeper_service.domain.record import Record, SessionKey
from cellkeeper_service.domain.store import (
    Commit,
    CommitResult,
    Delete,
    Load,
    Outcome,
    Page,
    Store,
    StoreError,
    StoreLost,
)
from cellkeeper_service.errors import Reason, Rejection

from .guarded_meter import guarded
from .non_blocking_calls import NonBlockingCalls
from .store_results import check_results, is_commit_result, is_load_result

log = logging.getLogger(__name__)

Result = TypeVar("Result")
MAX_SCANS = 2
RECENT_SECONDS = 0.5  # what the store answered so lately tells that it is there
NO_SESSION = SessionKey("", "", "probe")  # no model has an empty name
SCAN_RETRY_MS = 200
IS_RESULT = {"load": is_load_result, "write": is_commit_result}


class StoreCalls:
    """Results are delivered on the loop's thread, one for each item. A store that breaks its contract, by an exception
    or by what it returns, is taken for one that did not answer."""

    def __init__(self, store: Store, threads: int, meter: Meter) -> None:
        """threads: how many calls may be under way; 0: every call is made at once, on the loop's thread (for a
        store that lives in memory)."""
        self.store = store
        self._meter = guarded(meter)
        self._limit = max(threads // 2, 1)
        # a thread for every call that may be under way: what has been sent does not queue behind other calls
        self._pool = ThreadPoolExecutor(2 * self._limit + 2 + MAX_SCANS, "store") if threads else None
        self._begin = store.begin_commit if threads and isinstance(store, NonBlockingStore) else None
        self._non_blocking = NonBlockingCalls()
        self._under_way = {"load": 0, "write": 0, "scan": 0}
        self._answered = float("-inf")  # when it last did; monotonic
        self._probe: asyncio.Future[str] | None = None

    def has_room(self, call: str) -> bool:
        """Loads and writes each get half of the threads, so that neither can starve the other. Room for a write is
        room for a commit and a delete together."""
        return self._under_way[call] < self._limit

    @property
    def any_under_way(self) -> bool:
        return any(self._under_way.values())

    def load(self, loads: Sequence[Load], deliver: Callable[[list[Record | StoreError | None]], None]) -> None:
        def lost(why: str) -> list[Record | StoreError | None]:
            return [StoreError(why) for _ in loads]

        self._call("load", "load", len(loads), partial(self.store.load_many, loads), lost, deliver)

    def commit(self, commits: Sequence[Commit], deliver: Callable[[list[CommitResult]], None]) -> None:
        lost = _unknown(len(commits))
        arrived = self._arrival("commit", "write", len(commits), lost, deliver)
        try:
            pending = self._begin(commits) if self._begin else None
        except Exception as error:
            log.exception("the store could not begin a commit")
            arrived(lost(_text(error)))
            return
        if pending is None:
            self._make(partial(self.store.commit_many, commits), lost, arrived)
        else:
            self._non_blocking.watch(pending, partial(self._waited, lost, arrived))

    def delete(self, deletes: Sequence[Delete], deliver: Callable[[list[CommitResult]], None]) -> None:
        call = partial(self.store.delete_many, deletes)
        self._call("delete", "write", len(deletes), call, _unknown(len(deletes)), deliver)

    async def scan(self, tenant: str, model: str, prefix: str, cursor: str, limit: int) -> Page:
        """As the store's. Raises StoreError and ValueError, and a Rejection while too many are under way."""
        if self._under_way["scan"] >= MAX_SCANS:
            text = f"{MAX_SCANS} listings are under way, which is the most at one time"
            raise Rejection(Reason.QUEUE_FULL, text, retry_delay_ms=SCAN_RETRY_MS)
        call = partial(self.store.scan, tenant, model, prefix, cursor, limit)
        started, failed = time.monotonic(), True
        try:
            page = await self._scan(call)
            failed = False
            return page
        finally:
            self._meter.store_call("scan", limit, time.monotonic() - started, failed)

    async def reach(self) -> str:
        """Why the store does not answer; empty: it does. It is asked only where nothing else was lately."""

        def lost(why: str) -> list[Record | StoreError | None]:
            return [StoreError(why)]

        if time.monotonic() - self._answered < RECENT_SECONDS:
            return ""
        if self._probe is None or self._probe.done():  # however many ask at the same time
            self._probe = asyncio.get_running_loop().create_future()
            deliver = partial(_tell, self._probe)
            if self._under_way["load"] <= self._limit:  # it may take one more thread than loads do
                load = partial(self.store.load_many, [Load(NO_SESSION, False)])
                self._call("probe", "load", 1, load, lost, deliver)
            else:
                deliver([StoreError("it has not answered to what was sent before")])
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
                future.exception()  # looked at, also where the caller has gone

        self._under_way["scan"] += 1
        future = asyncio.get_running_loop().run_in_executor(self._pool, call)
        future.add_done_callback(ended)
        return await asyncio.shield(future)  # a caller that goes away does not end the store's work

    def _call(
        self,
        name: str,
        room: str,
        items: int,
        call: Callable[[], list[Result]],
        lost: Callable[[str], list[Result]],
        deliver: Callable[[list[Result]], None],
    ) -> None:
        self._make(call, lost, self._arrival(name, room, items, lost, deliver))

    def _arrival(
        self,
        name: str,
        room: str,
        items: int,
        lost: Callable[[str], list[Result]],
        deliver: Callable[[list[Result]], None],
    ) -> Callable[[list[Result]], None]:
        """A call begins here. What is returned is to be called with its results."""
        started = time.monotonic()
        self._under_way[room] += 1

        def arrived(answer: list[Result]) -> None:
            self._under_way[room] -= 1
            results, failed = check_results(answer, items, IS_RESULT[room], lost)
            # What failed is later news than what succeeded: the next probe asks.
            self._answered = float("-inf") if failed else time.monotonic()
            self._meter.store_call(name, items, time.monotonic() - started, failed)
            deliver(results)

        return arrived

    def _make(
        self,
        call: Callable[[], list[Result]],
        lost: Callable[[str], list[Result]],
        arrived: Callable[[list[Result]], None],
    ) -> None:
        def ended(future: asyncio.Future[list[Result]]) -> None:
            error = future.exception()
            if error is not None:
                log.error("the store failed where it should not", exc_info=error)
            arrived(future.result() if error is None else lost(_text(error)))

        if self._pool is None:
            try:
                results = call()
            except Exception as error:
                log.exception("the store failed where it should not")
                results = lost(_text(error))
            arrived(results)
        else:
            asyncio.get_running_loop().run_in_executor(self._pool, call).add_done_callback(ended)

    def _waited(
        self,
        lost: Callable[[str], list[CommitResult]],
        arrived: Callable[[list[CommitResult]], None],
        pending: PendingCommit,
    ) -> None:
        """The loop has nothing more to wait for."""
        try:
            if pending.stage is Stage.BLOCKED:
                self._make(pending.finish, lost, arrived)
                return
            results = pending.finish()
        except Exception as error:
            log.exception("the store could not finish a commit")
            results = lost(_text(error))
        arrived(results)


def _tell(probe: asyncio.Future[str], results: list[Record | StoreError | None]) -> None:
    if not probe.done():
        probe.set_result(_why_unreachable(results[0]))


def _why_unreachable(result: Record | StoreError | None) -> str:
    """Empty: it answered."""
    if isinstance(result, StoreLost):
        return f"the store is lost: {result}"
    return "the store does not answer" if isinstance(result, StoreError) else ""


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _unknown(count: int) -> Callable[[str], list[CommitResult]]:
    return lambda why: [CommitResult(Outcome.UNKNOWN, None, why)] * count
