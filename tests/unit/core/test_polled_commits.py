"""Commits are polled before the loop watches them, if the answer is expected at once, and polling was not in vain."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Sequence
from typing import Any
from unittest.mock import Mock

import pytest
from cellkeeper_service.core import non_blocking_calls
from cellkeeper_service.core.attempts import FAILURES, SKIPS, Attempts
from cellkeeper_service.core.loop import FEW_REQUESTS
from cellkeeper_service.core.non_blocking_calls import NonBlockingCalls
from cellkeeper_service.core.store_calls import StoreCalls
from cellkeeper_service.domain.meter import Meter
from cellkeeper_service.domain.non_blocking import PendingCommit, Stage
from cellkeeper_service.domain.store import COMMITTED, Commit, CommitResult
from cellkeeper_service.store.memory import MemoryStore
from cellkeeper_service.store.open import open_store

from testing.redis_server import RedisServer
from tests.contract.store.records import committed, create, key

from .counting_engine import expected
from .loop import Server, outputs, play


class Distant:
    """A commit whose answer comes when `answer` is called; counts how often anybody looks for it."""

    def __init__(self, deadline: float = float("inf")) -> None:
        self.results: list[CommitResult] = [COMMITTED]
        self.looks = 0
        self.deadline = deadline
        self.stage = Stage.WAITING
        self._ours, self._theirs = socket.socketpair()

    def fileno(self) -> int:
        return self._ours.fileno()

    def answer(self) -> None:
        self.stage = Stage.DONE
        self._theirs.send(b"!")

    def advance(self) -> Stage:
        self.looks += 1
        return self.stage

    def finish(self) -> list[CommitResult]:
        self._ours.close()
        self._theirs.close()
        return self.results


class DistantStore(MemoryStore):
    """A memory store whose answers come when a test lets them."""

    def __init__(self) -> None:
        super().__init__()
        self.pending: asyncio.Queue[Distant] = asyncio.Queue()

    def begin_commit(self, commits: Sequence[Commit]) -> PendingCommit:
        pending = Distant()
        pending.results = self.commit_many(commits)
        self.pending.put_nowait(pending)
        return pending


def test_after_failures_in_a_row_attempts_are_left_out() -> None:
    attempts = Attempts()
    made = []
    for _ in range(2 * (FAILURES + SKIPS)):
        made.append(not attempts.skip())
        if made[-1]:
            attempts.ended(success=False)
    assert made == ([True] * FAILURES + [False] * SKIPS) * 2


def test_a_success_makes_up_for_failures() -> None:
    attempts = Attempts()
    for _ in range(5):
        for success in [False] * (FAILURES - 1) + [True]:
            assert not attempts.skip()
            attempts.ended(success)


def test_an_answer_that_comes_at_once_is_taken_at_once() -> None:
    """On a real Redis, where it comes in time now and then on the busiest machine."""

    async def test() -> None:
        with RedisServer() as server:
            store = open_store(server.url)
            committed(store, create(key("first")))
            calls = StoreCalls(store, 4, Meter())
            for number in range(10_000):
                results: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
                calls.commit([create(key(f"s{number}"))], results.set_result, at_once=True)
                at_once = results.done()
                assert await results == [COMMITTED]
                if at_once:
                    break
            assert at_once
            calls.close()
            store.close()

    play(test)


def test_it_is_polled_until_the_answer_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every time, without a turn of the event loop."""
    monkeypatch.setattr(non_blocking_calls, "BUSY_SECONDS", 60.0)

    async def test() -> None:
        calls, looks = NonBlockingCalls(), [Stage.WAITING] * 9 + [Stage.DONE]
        for _ in range(FAILURES + 1):
            pending, ends = Distant(), list[PendingCommit]()
            monkeypatch.setattr(pending, "advance", Mock(side_effect=looks))
            calls.watch(pending, ends.append, at_once=True)
            assert ends == [pending]
            pending.finish()
        calls.close()

    play(test)


def test_polling_keeps_the_event_loop_for_a_moment_only() -> None:
    async def test() -> None:
        calls, pending = NonBlockingCalls(), Distant()
        began = time.thread_time()
        calls.watch(pending, lambda ended: None, at_once=True)
        assert time.thread_time() - began < 0.05
        assert pending.looks > 0
        calls.close()

    play(test)


def test_a_commit_is_given_up_at_its_last_deadline() -> None:
    """Bytes that arrive move it."""

    async def test() -> None:
        calls, pending = NonBlockingCalls(), Distant(deadline=time.monotonic() + 0.05)
        ended: asyncio.Future[PendingCommit] = asyncio.get_running_loop().create_future()
        calls.watch(pending, ended.set_result)
        pending.deadline += 0.05
        assert await ended is pending
        assert time.monotonic() >= pending.deadline
        pending.finish()

    play(test)


def test_polling_ends_and_stops_where_it_is_in_vain() -> None:
    async def test() -> None:
        calls, ends = NonBlockingCalls(), []
        pending = [Distant() for _ in range(FAILURES + SKIPS + 1)]
        for one in pending:
            ends.append(asyncio.get_running_loop().create_future())
            calls.watch(one, ends[-1].set_result, at_once=True)
        assert [one.looks > 0 for one in pending] == [True] * FAILURES + [False] * SKIPS + [True]
        for one in pending:
            one.answer()
        assert await asyncio.gather(*ends) == pending
        for one in pending:
            one.finish()
        calls.close()

    play(test)


@pytest.mark.parametrize("error", [OSError, ValueError, RuntimeError])
def test_a_store_that_raises_while_it_is_polled_is_reported(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """As when it raises while it is watched; from `fileno`, OSError would only mean that the connection is closed."""

    async def test() -> None:
        calls, pending, ends = NonBlockingCalls(), Distant(), list[PendingCommit]()
        monkeypatch.setattr(pending, "advance", Mock(side_effect=error("it should not")))
        calls.watch(pending, ends.append, at_once=True)
        assert ends == [pending]
        (record,) = caplog.records
        assert record.message == "the store failed where it should not"
        assert record.exc_info is not None
        assert record.exc_info[0] is error
        pending.finish()
        calls.close()

    play(test)


@pytest.mark.parametrize("failing", ["advance", "deadline"])
def test_a_store_that_raises_while_it_is_watched_is_reported(caplog: pytest.LogCaptureFixture, failing: str) -> None:
    class Failing(Distant):
        """Fails once bytes have arrived."""

        fails = False

        def __getattribute__(self, name: str) -> Any:
            if name == failing and self.fails:
                raise ZeroDivisionError("it should not")
            return super().__getattribute__(name)

    async def test() -> None:
        calls, pending = NonBlockingCalls(), Failing()
        ended: asyncio.Future[PendingCommit] = asyncio.get_running_loop().create_future()
        calls.watch(pending, ended.set_result)
        pending.fails = True
        pending._theirs.send(b"!")  # not the whole answer
        assert await asyncio.wait_for(ended, 5) is pending
        assert [record.message for record in caplog.records] == ["the store failed where it should not"]
        pending.finish()
        calls.close()

    play(test)


def test_nothing_is_polled_that_is_not_expected_at_once() -> None:
    async def test() -> None:
        calls, pending = NonBlockingCalls(), Distant()
        calls.watch(pending, lambda ended: None)
        assert pending.looks == 0
        calls.close()

    play(test)


@pytest.mark.parametrize("sessions", [1, FEW_REQUESTS, FEW_REQUESTS + 1])
def test_the_loop_polls_while_few_requests_are_unanswered(sessions: int) -> None:
    async def test() -> None:
        store, world = DistantStore(), Server(slots=8)
        calls = StoreCalls(store, 4, Meter())
        world.loop = world.loop_on(calls)
        world.loop.start()
        replies = [world.step(1, session=f"s{number}") for number in range(sessions)]
        pending = await store.pending.get()
        assert (pending.looks > 0) is (sessions <= FEW_REQUESTS)
        pending.answer()
        for reply in replies:
            assert outputs(await reply) == expected([1])
        await world.loop.drain()
        calls.close()

    play(test)
