"""What happens only in a Redis Cluster: nodes that fail alone, slots that move."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event

import pytest
from cellkeeper_service.domain.record import Header, Record
from cellkeeper_service.domain.store import (
    Commit,
    CommitResult,
    DamagedRecord,
    Delete,
    Load,
    Outcome,
    Store,
    StoreError,
)
from cellkeeper_service.store.open import open_store
from cellkeeper_service.store.redis.keys import redis_key

from testing.redis_cluster import PRIMARIES, RedisCluster, slot_of
from testing.redis_server import RedisServer, free_port
from tests.contract.store.records import append, committed, create, generation, inputs, key, log_of
from tests.contract.store.worker import marked

TIMEOUT_MS = 500
SESSIONS = [f"s{n}" for n in range(60)]


@pytest.fixture
def cluster_store(redis_cluster: RedisCluster) -> Iterator[Store]:
    store = open_store(redis_cluster.url, timeout_ms=TIMEOUT_MS)
    yield store
    store.close()


def slot(session: str) -> int:
    return slot_of(redis_key(key(session)))


def companions(count: int) -> list[str]:
    """Returns names of sessions in one slot."""
    names = (f"c{n}" for n in range(100_000))
    return [name for name in names if slot(name) == slot("c0")][:count]


def create_all(store: Store, names: list[str]) -> dict[str, Header]:
    commits = [create(key(name), seed=n) for n, name in enumerate(names)]
    assert store.commit_many(commits) == [CommitResult(Outcome.COMMITTED)] * len(names)
    return {name: commit.header for name, commit in zip(names, commits, strict=True)}


def append_all(store: Store, headers: dict[str, Header], seed: int) -> tuple[list[Commit], list[CommitResult]]:
    commits = [append(key(name), header, inputs(seed)) for name, header in headers.items()]
    return commits, store.commit_many(commits)


def load_all(store: Store, names: list[str]) -> dict[str, Header]:
    records = dict(zip(names, store.load_many([Load(key(name), touch=True) for name in names]), strict=True))
    assert {name: record for name, record in records.items() if not isinstance(record, Record)} == {}
    return {name: record.header for name, record in records.items() if isinstance(record, Record)}


def owners(cluster: RedisCluster, names: list[str]) -> dict[str, int]:
    by_slot = {at: cluster.owner(at) for at in {slot(name) for name in names}}
    return {name: by_slot[slot(name)] for name in names}


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


def test_the_items_of_a_call_are_on_all_nodes(redis_cluster: RedisCluster, cluster_store: Store) -> None:
    headers = create_all(cluster_store, SESSIONS)
    assert set(owners(redis_cluster, SESSIONS).values()) == {0, 1, 2}
    stale = committed(cluster_store, append(key("s7"), headers["s7"], inputs(1)))
    commits, results = append_all(cluster_store, {**headers, "missing": headers["s1"]}, 2)
    expected = {**dict.fromkeys(SESSIONS, CommitResult(Outcome.COMMITTED)), "missing": CommitResult(Outcome.CONFLICT)}
    expected["s7"] = CommitResult(Outcome.CONFLICT, stale)
    assert dict(zip([commit.key.session for commit in commits], results, strict=True)) == expected
    records = cluster_store.load_many([Load(commit.key, touch=True) for commit in commits])
    for commit, record in zip(commits, records, strict=True):
        name = commit.key.session
        wanted = {"missing": None, "s7": Record(stale, b"state 0", inputs(1))}
        assert record == wanted.get(name, Record(commit.header, b"state 0", inputs(2)))
    deletes = [Delete(key(name), generation(n % 50)) for n, name in enumerate(SESSIONS)]
    outcomes = [result.outcome for result in cluster_store.delete_many(deletes)]
    assert outcomes == [Outcome.COMMITTED] * 50 + [Outcome.CONFLICT] * 10


def test_a_paused_node_is_unknown_for_its_own_items(redis_cluster: RedisCluster, cluster_store: Store) -> None:
    headers = create_all(cluster_store, SESSIONS)
    where = owners(redis_cluster, SESSIONS)
    for node in (0, 2):  # for which they need a second round
        redis_cluster.command(node, "SCRIPT", "FLUSH")
    redis_cluster.nodes[1].pause()
    commits, results = append_all(cluster_store, headers, 1)
    loaded = cluster_store.load_many([Load(key(name), touch=True) for name in SESSIONS])
    redis_cluster.nodes[1].wake()
    for commit, result, record in zip(commits, results, loaded, strict=True):
        paused = where[commit.key.session] == 1
        assert result.outcome is (Outcome.UNKNOWN if paused else Outcome.COMMITTED)
        assert isinstance(record, StoreError) if paused else record == Record(commit.header, b"state 0", inputs(1))
    names = [name for name in SESSIONS if where[name] == 1]
    for name in names:  # the late scripts are executed before or after this
        (result,) = cluster_store.commit_many([append(key(name), headers[name], inputs(1))])
        assert result.outcome in (Outcome.COMMITTED, Outcome.CONFLICT)
        assert log_of(cluster_store, key(name)) == inputs(1)


def test_a_killed_node_and_its_replica() -> None:
    with RedisCluster(replicas=True) as cluster:
        store = open_store(cluster.url, timeout_ms=2000, wait_replicas=1)
        store.check()
        headers = create_all(store, SESSIONS)  # because of wait_replicas, each replica has them
        where = owners(cluster, SESSIONS)
        cluster.nodes[0].kill()
        commits, results = append_all(store, headers, 1)
        for commit, result in zip(commits, results, strict=True):
            lost = where[commit.key.session] == 0
            assert result.outcome in ((Outcome.UNREACHED, Outcome.UNKNOWN) if lost else (Outcome.COMMITTED,))
            if result.outcome is Outcome.COMMITTED:
                headers[commit.key.session] = commit.header
        with pytest.raises(StoreError, match=rf"{cluster.nodes[0].port}.*reached"):
            store.check()
        cluster.take_over(3)  # (it has no replica of its own: with wait_replicas, those items stay unknown)
        commits, results = append_all(store, headers, 2)
        for commit, result in zip(commits, results, strict=True):
            lost = where[commit.key.session] == 0
            assert result.outcome is (Outcome.UNKNOWN if lost else Outcome.COMMITTED), result
            assert "replicas that have the commit: 0" in result.message or not lost
        kept = [name for name in SESSIONS if where[name] != 0]
        assert load_all(store, kept) == {
            name: commit.header for name, commit in zip(SESSIONS, commits, strict=True) if name in kept
        }
        unconfirmed = store.load_many([Load(key(name), True) for name in SESSIONS if where[name] == 0])
        assert all("replicas that have what was read: 0" in str(error) for error in unconfirmed), unconfirmed
        assert {at.session for at, _ in store.scan("", "weather", "", "", 1000).sessions} == set(SESSIONS)
        store.close()

        store = open_store(cluster.url, timeout_ms=TIMEOUT_MS)  # the first node in the URL is dead
        headers = {commit.key.session: commit.header for commit in commits}
        assert {result.outcome for result in append_all(store, headers, 3)[1]} == {Outcome.COMMITTED}
        headers = {commit.key.session: commit.header for commit in append_all(store, headers, 3)[0]}
        cluster.nodes[1].pause()
        outcomes = [result.outcome for result in append_all(store, headers, 4)[1]]
        assert outcomes == [Outcome.UNKNOWN if where[name] == 1 else Outcome.COMMITTED for name in SESSIONS]
        cluster.nodes[1].kill()
        cluster.take_over(4)
        headers = load_all(store, SESSIONS)
        assert {result.outcome for result in append_all(store, headers, 5)[1]} == {Outcome.COMMITTED}
        store.close()


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


def test_a_node_that_may_evict_is_refused(redis_cluster: RedisCluster, cluster_store: Store) -> None:
    port = redis_cluster.nodes[2].port
    redis_cluster.command(2, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    with pytest.raises(StoreError, match=rf"{port}.*allkeys-lru.*noeviction"):
        cluster_store.check()
    redis_cluster.command(2, "CONFIG", "SET", "maxmemory-policy", "noeviction")
    cluster_store.check()


def test_one_node_of_the_url_is_enough(redis_cluster: RedisCluster) -> None:
    port = redis_cluster.nodes[1].port
    store = open_store(f"redis+cluster://127.0.0.1:1,127.0.0.1:{port}/0")
    store.check()
    create_all(store, SESSIONS)
    store.close()
    single = open_store(f"redis://127.0.0.1:{port}/0")
    with pytest.raises(StoreError, match=r"cluster mode.*redis\+cluster://"):
        single.check()
    single.close()


def test_a_node_that_knows_no_other(redis_cluster: RedisCluster) -> None:
    """It answers but names no node for any slot, so the next node is asked."""
    with RedisServer(
        {"cluster-enabled": "yes", "cluster-require-full-coverage": "no", "cluster-port": str(free_port())}
    ) as lone:
        _, _, others = redis_cluster.url.partition("//")
        store = open_store(f"redis+cluster://127.0.0.1:{lone.port},{others}", timeout_ms=TIMEOUT_MS)
        store.check()
        store.close()
        store = open_store(f"redis+cluster://127.0.0.1:{lone.port},{others}", timeout_ms=TIMEOUT_MS)
        headers = create_all(store, SESSIONS)
        assert load_all(store, SESSIONS) == headers
        store.close()
        store = open_store(f"redis+cluster://127.0.0.1:{lone.port}", timeout_ms=TIMEOUT_MS)
        with pytest.raises(StoreError, match="no node"):
            store.check()
        store.close()


def test_no_cluster_there() -> None:
    store = open_store("redis+cluster://127.0.0.1:1", timeout_ms=TIMEOUT_MS)
    (result,) = store.commit_many([create(key())])
    assert result.outcome is Outcome.UNREACHED
    assert "127.0.0.1:1" in result.message
    assert isinstance(store.load_many([Load(key(), touch=False)])[0], StoreError)
    for call in (store.check, lambda: store.scan("", "weather", "", "", 10)):
        with pytest.raises(StoreError, match="no node of the Redis Cluster"):
            call()
    store.close()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis+cluster://localhost:1/2", "database '2'"),
        ("redis+cluster://localhost:port", "cannot be read"),
        ("redis+cluster://localhost:1,", "node ''"),
        ("redis+cluster://", "node ''"),
    ],
)
def test_urls_that_cannot_be(url: str, words: str) -> None:
    with pytest.raises(StoreError, match=words):
        open_store(url)
