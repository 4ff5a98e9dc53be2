"""Commits that the loop itself waits for, on a real Redis: they never block it, and leave nothing behind."""

from __future__ import annotations

import asyncio
import select
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from cellkeeper_service.core.store_calls import StoreCalls
from cellkeeper_service.domain.meter import Meter
from cellkeeper_service.domain.non_blocking import PendingCommit
from cellkeeper_service.domain.store import COMMITTED, Commit, CommitResult, Outcome, Store
from cellkeeper_service.errors import Rejection
from cellkeeper_service.store.memory import MemoryStore
from cellkeeper_service.store.open import open_store

from testing.redis_server import RedisServer
from tests.contract.store.records import append, committed, create, inputs, key, log_of

from .counting_engine import expected
from .loop import PLAY_S, Server, outputs, play

TIMEOUT_S = 0.5
PATIENCE_S = 2 * PLAY_S  # the timeout of a store that must not time out
SCHEDULED = Path("/proc/thread-self/schedstat")
Results = asyncio.Future[list[CommitResult]]


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def store(server: RedisServer) -> Iterator[Store]:
    """A store with an idle connection, on a server that has loaded the script."""
    store = open_store(server.url, timeout_ms=int(1000 * TIMEOUT_S))
    committed(store, create(key("first")))
    yield store
    store.close()


@pytest.fixture
def patient_store(server: RedisServer) -> Iterator[Store]:
    """The same with a timeout longer than any test."""
    store = open_store(server.url, timeout_ms=int(1000 * PATIENCE_S))
    committed(store, create(key("first")))
    yield store
    store.close()


def commit(calls: StoreCalls, *commits: Commit) -> Results:
    results: Results = asyncio.get_running_loop().create_future()
    calls.commit(commits, results.set_result)
    return results


def threads(calls: StoreCalls) -> int:
    """Returns how many threads were ever started."""
    assert calls._pool is not None
    return len(calls._pool._threads)


def own_seconds() -> float:
    """Returns this thread's clock, in seconds, which stops while the thread waits for a processor.

    Other processes on the machine do not count; what this thread computes and waits for does.
    """
    waited_ns = int(SCHEDULED.read_text().split()[1]) if SCHEDULED.exists() else 0
    return time.monotonic() - waited_ns / 1e9


async def turn_until(condition: Callable[[], bool]) -> float:
    """Turns the loop until `condition` holds. Returns the longest turn, in the thread's own seconds."""
    longest, before = 0.0, own_seconds()
    while not condition():
        await asyncio.sleep(0)
        now = own_seconds()
        longest, before = max(longest, now - before), now
    return longest


def watched() -> set[int]:
    """Returns the file descriptors that the event loop watches."""
    loop: Any = asyncio.get_running_loop()
    return set(loop._selector.get_map())


def test_commits_need_no_thread_and_leave_no_reader(patient_store: Store) -> None:
    async def test() -> None:
        calls, before = StoreCalls(patient_store, 4, Meter()), watched()
        first = create(key())
        assert await commit(calls, first) == [COMMITTED]
        assert await commit(calls, append(key(), first.header, inputs(1)), create(key("b"))) == [COMMITTED] * 2
        assert (await commit(calls, first))[0].outcome is Outcome.CONFLICT
        assert threads(calls) == 0
        assert watched() == before
        assert not calls.any_under_way
        calls.close()

    play(test)


def test_more_at_a_time_than_there_are_connections(server: RedisServer, patient_store: Store) -> None:
    async def test() -> None:
        calls = StoreCalls(patient_store, 8, Meter())
        server.pause()
        several = [commit(calls, create(key(f"s{number}"))) for number in range(4)]
        await turn_until(lambda: threads(calls) == 3)  # each opens a connection
        server.wake()
        assert await asyncio.gather(*several) == [[COMMITTED]] * 4
        before = watched()
        server.pause()
        again = [commit(calls, create(key(f"t{number}"))) for number in range(4)]
        assert len(watched()) == len(before) + 4
        server.wake()
        assert await asyncio.gather(*again) == [[COMMITTED]] * 4
        assert watched() == before
        calls.close()

    play(test)


def test_a_stopped_server_is_unknown_and_does_not_stop_the_loop(server: RedisServer, store: Store) -> None:
    async def test() -> None:
        calls, before = StoreCalls(store, 4, Meter()), watched()
        server.pause()
        began = time.monotonic()
        results = commit(calls, create(key()))
        longest = await turn_until(results.done)
        waited = time.monotonic() - began
        server.wake()  # it was stopped until now
        assert results.result()[0].outcome is Outcome.UNKNOWN
        assert waited > 0.9 * TIMEOUT_S
        assert longest < 0.5 * TIMEOUT_S
        assert watched() == before
        assert threads(calls) == 0
        assert (await commit(calls, create(key("other")))) == [COMMITTED]
        calls.close()

    play(test)


def test_replies_that_come_one_after_another_are_waited_for(server: RedisServer) -> None:
    """Redis answers the commit at once, and half a timeout later how many replicas have it."""

    async def test() -> None:
        store = open_store(server.url, timeout_ms=int(1000 * TIMEOUT_S), wait_replicas=1)
        store.commit_many([create(key("first"))])
        calls, before = StoreCalls(store, 4, Meter()), watched()
        (result,) = await commit(calls, create(key()))
        assert result == (Outcome.UNKNOWN, None, "replicas that have the commit: 0, expected 1")
        assert threads(calls) == 0
        assert watched() == before
        calls.close()
        store.close()

    play(test)


def test_a_killed_server_is_unknown_at_once(server: RedisServer, patient_store: Store) -> None:
    """It is unknown long before the timeout, for which `play` does not wait."""

    async def test() -> None:
        calls, before = StoreCalls(patient_store, 4, Meter()), watched()
        server.pause()
        results = commit(calls, create(key()))
        server.kill()
        assert (await results)[0].outcome is Outcome.UNKNOWN
        assert watched() == before
        assert (await commit(calls, create(key())))[0].outcome is Outcome.UNREACHED
        server.restart()
        assert (await commit(calls, create(key("other")))) == [COMMITTED]
        calls.close()

    play(test)


def test_a_reply_that_is_there_counts_however_late_the_loop_is(store: Store) -> None:
    async def test() -> None:
        calls, before = StoreCalls(store, 4, Meter()), watched()
        until = time.monotonic() + 1.5 * TIMEOUT_S
        results = commit(calls, create(key()))
        select.select(watched() - before, [], [])  # the reply is there
        while time.monotonic() < until:  # the loop is busy with something else
            pass
        assert await results == [COMMITTED]
        calls.close()

    play(test)


def test_a_forgotten_script_is_loaded_by_a_thread(server: RedisServer, patient_store: Store) -> None:
    async def test() -> None:
        header = committed(patient_store, create(key()))
        with server.client() as client:
            client.script_flush()
        calls = StoreCalls(patient_store, 4, Meter())
        assert await commit(calls, append(key(), header, inputs(1))) == [COMMITTED]
        assert threads(calls) == 1
        assert log_of(patient_store, key()) == inputs(1)
        calls.close()

    play(test)


def test_a_large_batch_does_not_stop_the_loop(server: RedisServer, patient_store: Store) -> None:
    async def test() -> None:
        calls = StoreCalls(patient_store, 4, Meter())
        commits = [create(key(f"s{number}"), checkpoint=bytes(1_000_000)) for number in range(40)]
        server.pause()
        began = own_seconds()
        results = commit(calls, *commits)
        longest = own_seconds() - began
        assert threads(calls) == 1
        server.wake()
        longest = max(longest, await turn_until(results.done))
        assert results.result() == [COMMITTED] * 40
        assert longest < 0.5
        calls.close()

    play(test)


def test_closing_gives_up_what_is_under_way(server: RedisServer, patient_store: Store) -> None:
    async def test() -> None:
        calls, before = StoreCalls(patient_store, 4, Meter()), watched()
        server.pause()
        results = commit(calls, create(key()))
        assert len(watched()) == len(before) + 1
        began = time.monotonic()
        calls.close()
        assert time.monotonic() - began < 0.5 * PATIENCE_S
        assert watched() == before
        server.wake()
        committed(patient_store, create(key("other")))  # on a new connection: the old one still has a reply to come
        assert not results.done()

    play(test)


@pytest.mark.parametrize("stopped", [False, True])
def test_a_drained_server_leaves_no_reader(server: RedisServer, store: Store, stopped: bool) -> None:
    async def test() -> None:
        before = watched()
        world = Server()
        calls = StoreCalls(store, 4, Meter())
        world.loop = world.loop_on(calls)
        world.loop.start()
        assert outputs(await world.step(1)) == expected([1])
        if stopped:
            server.pause()
        taken = world.step(2, seconds=8.0)
        drain = asyncio.ensure_future(world.loop.drain())
        reply = await taken
        await drain
        calls.close()
        assert isinstance(reply, Rejection) is stopped
        assert watched() == before
        server.wake()

    play(test)


class Broken(MemoryStore):
    """A store that breaks its contract."""

    def begin_commit(self, commits: Sequence[Commit]) -> PendingCommit | None:
        raise RuntimeError("it should not")


def test_a_store_that_raises_has_not_answered() -> None:
    async def test() -> None:
        calls = StoreCalls(Broken(), 4, Meter())
        (result,) = await commit(calls, create(key()))
        assert result == (Outcome.UNKNOWN, None, "RuntimeError: it should not")
        assert not calls.any_under_way
        calls.close()

    play(test)
