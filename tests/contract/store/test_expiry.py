"""Idle sessions expire, used ones do not: on each of the stores, in real time."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from cellkeeper_service.domain.record import Header, Record
from cellkeeper_service.domain.store import CommitResult, Delete, Load, Outcome, Store

from tests.contract.store.records import HOUR_MS, append, committed, create, generation, inputs, key

TTL_MS = 150
TTLS_MS = [TTL_MS << doubled for doubled in range(6)]
"""One after another, until the machine uses the record within it, however busy it is."""
WAIT_S = 10.0
LOOK_S = 0.005
"""Between two checks: without a pause, each test keeps two processors busy, for this process and the store."""


def is_there(store: Store) -> bool:
    (record,) = store.load_many([Load(key(), touch=False)])
    assert not isinstance(record, Exception)
    return record is not None


def wait_until_gone(store: Store) -> float:
    """Waits until the record is gone. Returns for how many seconds it was last seen."""
    began = last = looked = time.monotonic()
    while is_there(store):
        last, looked = looked, time.monotonic()
        assert looked - began < WAIT_S, "the record was never forgotten"
        time.sleep(LOOK_S)
    return last - began


def test_an_idle_record_is_forgotten_wholly(store: Store) -> None:
    commit = create(key(), ttl_ms=TTL_MS, log=inputs(1))
    before = time.monotonic()
    committed(store, commit)
    wait_until_gone(store)
    assert time.monotonic() - before >= 0.9 * TTL_MS / 1000  # clocks differ by a tick
    assert store.scan("", "weather", "", "", 10).sessions == []
    late = append(key(), commit.header, inputs(2))
    assert store.commit_many([late]) == [CommitResult(Outcome.CONFLICT)]
    assert store.delete_many([Delete(key(), generation(1))]) == [CommitResult(Outcome.CONFLICT)]
    committed(store, create(key(), seed=2))
    assert is_there(store)


def test_a_forgotten_record_that_nobody_has_read_since_is_not_listed(store: Store) -> None:
    committed(store, create(key(), ttl_ms=TTL_MS))
    until = time.monotonic() + WAIT_S
    while store.scan("", "weather", "", "", 10).sessions:
        assert time.monotonic() < until, "the record is still listed"
        time.sleep(LOOK_S)


def test_many_new_records_take_the_place_of_forgotten_ones(store: Store) -> None:
    names = [f"s{number}" for number in range(8)]
    old = [create(key(name), ttl_ms=TTL_MS, log=inputs(1)) for name in names]
    assert store.commit_many(old) == [CommitResult(Outcome.COMMITTED)] * 8
    loads = [Load(key(name), touch=False) for name in names]
    until = time.monotonic() + WAIT_S
    while store.load_many(loads) != [None] * 8:
        assert time.monotonic() < until, "some were never forgotten"
        time.sleep(LOOK_S)
    new = [create(key(name), seed=2, checkpoint=b"another state", ttl_ms=HOUR_MS) for name in names]
    assert store.commit_many(new) == [CommitResult(Outcome.COMMITTED)] * 8
    assert store.load_many(loads) == [Record(commit.header, b"another state", b"") for commit in new]


def _by_commit(store: Store) -> None:
    (record,) = store.load_many([Load(key(), touch=False)])
    if isinstance(record, Record):
        store.commit_many([append(key(), record.header, inputs(1))])


def _by_touch(store: Store) -> None:
    store.load_many([Load(key(), touch=True)])


@pytest.mark.parametrize("use", [_by_commit, _by_touch])
def test_a_used_record_stays(store: Store, use: Callable[[Store], None]) -> None:
    assert any(stays_while_used(store, use, ttl_ms) for ttl_ms in TTLS_MS), "the machine was never quick enough"
    wait_until_gone(store)


def stays_while_used(store: Store, use: Callable[[Store], None], ttl_ms: int) -> bool:
    """Returns False if the record was left alone for as long as its TTL, which proves nothing."""
    used = time.monotonic()
    committed(store, create(key(), ttl_ms=ttl_ms))
    until = used + 3 * ttl_ms / 1000
    while used < until:
        before, used = used, time.monotonic()
        use(store)
        there = is_there(store)
        if time.monotonic() - before >= ttl_ms / 1000:
            wait_until_gone(store)
            return False
        assert there
        time.sleep(LOOK_S)
    return True


def test_a_look_does_not_keep_it(store: Store) -> None:
    committed(store, create(key(), ttl_ms=TTL_MS))
    assert wait_until_gone(store) < 3 * TTL_MS / 1000  # although it checks all the time


def ttl_taken_away(store: Store, ttl_ms: int) -> Header | None:
    """Returns None if the record was left alone for as long as its TTL, which proves nothing."""
    began = time.monotonic()
    first = committed(store, create(key(), ttl_ms=ttl_ms))
    second = append(key(), first, inputs(1), ttl_ms=0)
    if store.commit_many([second]) == [CommitResult(Outcome.COMMITTED)]:
        return second.header
    assert time.monotonic() - began >= ttl_ms / 1000, "the commit was refused within the TTL"
    wait_until_gone(store)
    return None


def test_a_commit_can_take_the_ttl_away_and_set_one(store: Store) -> None:
    tries = ((ttl_ms, ttl_taken_away(store, ttl_ms)) for ttl_ms in TTLS_MS)
    ttl_ms, second = next((ttl_ms, header) for ttl_ms, header in tries if header is not None)
    until = time.monotonic() + 1.5 * ttl_ms / 1000
    while time.monotonic() < until:
        assert is_there(store)
        time.sleep(LOOK_S)
    third = committed(store, append(key(), second, inputs(2), ttl_ms=HOUR_MS))
    committed(store, append(key(), third, inputs(3), ttl_ms=TTL_MS))
    wait_until_gone(store)


def test_a_ttl_beyond_all_clocks(store: Store) -> None:
    first = committed(store, create(key(), ttl_ms=2**64 - 1))
    committed(store, append(key(), first, inputs(1)))
    store.load_many([Load(key(), touch=True)])
    assert is_there(store)


def test_a_conflict_does_not_keep_it(store: Store) -> None:
    committed(store, create(key(), ttl_ms=TTL_MS))
    began = time.monotonic()
    while store.commit_many([create(key(), seed=2)])[0].outcome is Outcome.CONFLICT:
        assert time.monotonic() - began < WAIT_S
        time.sleep(LOOK_S)


def test_an_append_that_conflicts_does_not_keep_it(store: Store) -> None:
    committed(store, create(key(), ttl_ms=TTL_MS))
    others = append(key(), create(key(), seed=2, ttl_ms=TTL_MS).header, inputs(1))
    began = time.monotonic()
    while store.commit_many([others])[0].standing is not None:
        assert time.monotonic() - began < WAIT_S
        time.sleep(LOOK_S)
    assert not is_there(store)
