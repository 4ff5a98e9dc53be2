"""Slots of a Redis Cluster that move while the store uses them: commits, loads and listings go on."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event

import pytest
from cellkeeper_service.domain.record import Header
from cellkeeper_service.domain.store import CommitResult, DamagedRecord, Outcome, Store, StoreError
from cellkeeper_service.store.open import open_store

from testing.redis_cluster import PRIMARIES, RedisCluster
from tests.contract.store.cluster_records import SESSIONS, append_all, create_all, load_all, slot
from tests.contract.store.records import append, committed, create, inputs, key, log_of
from tests.contract.store.worker import marked


def companions(count: int) -> list[str]:
    """Returns names of sessions in one slot."""
    names = (f"c{n}" for n in range(100_000))
    return [name for name in names if slot(name) == slot("c0")][:count]


@contextmanager
def moving(cluster: RedisCluster, at: int) -> Iterator[tuple[int, int]]:
    """Keeps the slot on two nodes and yields (source, target). Afterwards the slot is back at the source."""
    source = cluster.owner(at)
    target = (source + 1) % PRIMARIES
    cluster.begin_move(at, source, target)
    try:
        yield source, target
    finally:
        cluster.end_move(at, source, target)
        cluster.move(at, target, source)


def test_a_move_is_followed(redis_cluster: RedisCluster, cluster_store: Store) -> None:
    headers = create_all(cluster_store, SESSIONS)
    at = slot("s0")
    source = redis_cluster.owner(at)
    for step, (before, after) in enumerate([(source, (source + 1) % 3), ((source + 1) % 3, source)]):
        redis_cluster.move(at, before, after)
        commits, results = append_all(cluster_store, headers, step)  # MOVED for some of the items
        assert results == [CommitResult(Outcome.COMMITTED)] * len(SESSIONS)
        headers = {commit.key.session: commit.header for commit in commits}
    assert log_of(cluster_store, key("s0")) == inputs(0) + inputs(1)


@pytest.mark.parametrize("script_known", [True, False])
def test_a_slot_on_two_nodes(redis_cluster: RedisCluster, cluster_store: Store, script_known: bool) -> None:
    names = companions(6)
    headers = create_all(cluster_store, [*names, *SESSIONS])
    with moving(redis_cluster, slot(names[0])) as (source, target):
        for moved in (0, 3, 3):
            redis_cluster.move_keys(slot(names[0]), source, target, moved) if moved else None
            if not script_known:
                redis_cluster.command(target, "SCRIPT", "FLUSH")
            commits, results = append_all(cluster_store, headers, moved)  # ASK, TRYAGAIN
            assert results == [CommitResult(Outcome.COMMITTED)] * len(headers)
            headers = {commit.key.session: commit.header for commit in commits}
            assert load_all(cluster_store, list(headers)) == headers
        (name,) = set(companions(7)) - set(names)
        committed(cluster_store, create(key(name), seed=99))  # a new one goes to the target
        assert cluster_store.commit_many([create(key(name), seed=100)])[0].outcome is Outcome.CONFLICT
    for name in names:
        assert log_of(cluster_store, key(name)) == inputs(0) + inputs(3) + inputs(3)


def test_a_slot_moves_while_appends_run(redis_cluster: RedisCluster) -> None:
    names = companions(8)
    store = open_store(redis_cluster.url, timeout_ms=5000)
    headers = create_all(store, names)
    at, stop = slot(names[0]), Event()

    def work(worker: int) -> list[tuple[str, int, bytes]]:
        mine, won, number = dict(headers), [], 0
        while not stop.is_set() or number < 20:
            commits = [append(key(name), mine[name], marked(worker, number)) for name in names]
            number += 1
            for commit, result in zip(commits, store.commit_many(commits), strict=True):
                name = commit.key.session
                assert result.outcome in (Outcome.COMMITTED, Outcome.CONFLICT), result
                if result.outcome is Outcome.COMMITTED:
                    won.append((name, mine[name].position.step, commit.log))
                mine[name] = result.standing or commit.header
        return won

    with ThreadPoolExecutor(2) as threads:
        futures = [threads.submit(work, worker) for worker in range(2)]
        try:
            for _ in range(3):
                with moving(redis_cluster, at) as (source, target):
                    while redis_cluster.move_keys(at, source, target, 1):
                        pass
        finally:
            stop.set()
        won = [win for future in futures for win in future.result(timeout=30)]
    for name in names:
        mine = sorted((step, log) for session, step, log in won if session == name)
        assert [step for step, _ in mine] == list(range(len(mine)))
        assert log_of(store, key(name)) == b"".join(log for _, log in mine)
    store.close()


def test_a_listing_survives_moves(
    redis_cluster: RedisCluster, cluster_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cellkeeper_service.store.redis.scan.SCAN_COUNT", 10)  # many pages per node
    names = [f"p{n}" for n in range(400)]
    headers = create_all(cluster_store, names)
    seen: dict[str, Header | DamagedRecord] = {}
    slots = sorted({slot(name) for name in names})
    cursor, pages = "", 0
    moves: list[tuple[int, int]] = []
    while True:
        page = cluster_store.scan("", "weather", "p", cursor, 1)
        seen.update({at.session: header for at, header in page.sessions})
        cursor = page.cursor
        if not cursor:
            break
        pages += 1
        if pages % 3 == 0 and len(moves) < len(slots):  # any slot, to a node that is finished or to one that is not
            at = slots[len(moves) * 37 % len(slots)]
            source = redis_cluster.owner(at)
            redis_cluster.move(at, source, (source + 1 + len(moves) % 2) % 3)
            moves.append((at, source))
    for at, source in moves:
        redis_cluster.move(at, redis_cluster.owner(at), source)
    assert seen == headers
    assert moves


def test_a_listing_waits_for_a_slot_that_is_moving(redis_cluster: RedisCluster, cluster_store: Store) -> None:
    headers = create_all(cluster_store, SESSIONS)
    seen: dict[str, Header | DamagedRecord] = {}
    cursor = ""

    def go_on() -> None:
        nonlocal cursor
        while True:
            page = cluster_store.scan("", "weather", "s", cursor, 100)
            seen.update({at.session: header for at, header in page.sessions})
            cursor = page.cursor
            if not cursor:
                return

    with moving(redis_cluster, slot("s0")) as (source, target):
        redis_cluster.move_keys(slot("s0"), source, target)
        with pytest.raises(StoreError, match=f"slot {slot('s0')} .* is being moved"):
            go_on()
        assert cursor
    go_on()
    assert seen == headers


SOMEWHERE = f"{'a' * 40}.{'b' * 40}"  # a node and its process


@pytest.mark.parametrize(
    "cursor",
    ["0.0.0.0..", "1.2.0.0..", "1.1.0.0..", "1.0.0.0...", "f" * 33 + ".0.0.0..", f"1.1.0.{2**64}.{SOMEWHERE}"],
)
def test_a_cursor_of_nobody(cluster_store: Store, cursor: str) -> None:
    with pytest.raises(ValueError, match="cursor"):
        cluster_store.scan("", "weather", "", cursor, 10)
