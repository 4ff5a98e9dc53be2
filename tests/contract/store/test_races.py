"""Several writers to one session: exactly one of them wins each step."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from threading import Barrier

import pytest
from cellkeeper_service.domain.store import Outcome, Store
from cellkeeper_service.store.open import open_store

from tests.contract.store.records import append, committed, create, key, log_of
from tests.contract.store.worker import Tally, hammer, hammer_url, marked

STEPS = 300


@pytest.fixture(autouse=True)
def short_turns() -> Iterator[None]:
    """Threads switch often enough to collide."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def check_tallies(store: Store, tallies: list[Tally]) -> None:
    """Checks that every step has one winner, and that the log is the winners' inputs in order."""
    won = sorted(win for tally in tallies for win in tally.won)
    assert sum(tally.conflicts for tally in tallies) > 0, "the workers never met"
    assert [step for step, _ in won] == list(range(len(won)))
    assert len(won) >= STEPS
    assert log_of(store, key()) == b"".join(inputs for _, inputs in won)


def test_two_threads_at_one_session(store: Store) -> None:
    committed(store, create(key(), ttl_ms=60_000))
    with ThreadPoolExecutor(2) as threads:
        barrier = Barrier(2)

        def work(worker: int) -> Tally:
            return hammer(store, worker, STEPS, lambda: barrier.wait(10))

        futures = [threads.submit(work, worker) for worker in range(2)]
        check_tallies(store, [future.result() for future in futures])


def test_two_processes_at_one_session(durable_url: str) -> None:
    store = open_store(durable_url, timeout_ms=20_000)
    committed(store, create(key(), ttl_ms=60_000))
    workers: Executor
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as workers:
        futures = [workers.submit(hammer_url, durable_url, worker, 2, STEPS) for worker in range(2)]
        check_tallies(store, [future.result(timeout=60) for future in futures])
    store.close()


def test_the_same_first_commit_from_eight_threads(store: Store) -> None:
    barrier = Barrier(8)

    def first(seed: int) -> Outcome:
        barrier.wait(10)
        return store.commit_many([create(key(), seed=seed)])[0].outcome

    with ThreadPoolExecutor(8) as threads:
        outcomes = list(threads.map(first, range(8)))
    assert sorted(outcome.value for outcome in outcomes) == ["committed"] + ["conflict"] * 7


def test_many_threads_at_many_sessions(store: Store) -> None:
    """Batches that overlap in different orders neither deadlock nor lose anything."""
    sessions = [f"s{n}" for n in range(10)]
    headers = {session: committed(store, create(key(session))) for session in sessions}

    def batches(worker: int) -> int:
        mine, won = dict(headers), 0
        for number in range(20):
            order = sessions if worker % 2 else sessions[::-1]
            commits = [append(key(name), mine[name], marked(worker, number)) for name in order]
            for commit, result in zip(commits, store.commit_many(commits), strict=True):
                won += result.outcome is Outcome.COMMITTED
                mine[commit.key.session] = result.standing or commit.header
        return won

    with ThreadPoolExecutor(4) as threads:
        won = sum(threads.map(batches, range(4)))
    assert won == sum(len(log_of(store, key(name))) for name in sessions) // headers["s0"].step_bytes
    assert won >= 20 * len(sessions)
