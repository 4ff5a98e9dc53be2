"""What happens only in a Redis Cluster: nodes that fail alone, and which nodes it takes."""

from __future__ import annotations

import pytest
from cellkeeper_service.domain.record import Record
from cellkeeper_service.domain.store import CommitResult, Delete, Load, Outcome, Store, StoreError
from cellkeeper_service.store.open import open_store

from testing.redis_cluster import RedisCluster
from testing.redis_server import RedisServer
from tests.contract.store.cluster_records import SESSIONS, TIMEOUT_MS, append_all, create_all, load_all, slot
from tests.contract.store.records import append, committed, create, generation, inputs, key, log_of


def owners(cluster: RedisCluster, names: list[str]) -> dict[str, int]:
    by_slot = {at: cluster.owner(at) for at in {slot(name) for name in names}}
    return {name: by_slot[slot(name)] for name in names}


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
    hurried = open_store(redis_cluster.url, timeout_ms=TIMEOUT_MS)
    headers = create_all(hurried, SESSIONS)
    where = owners(redis_cluster, SESSIONS)
    for node in (0, 2):  # for which they need a second round
        redis_cluster.command(node, "SCRIPT", "FLUSH")
    redis_cluster.nodes[1].pause()
    commits, results = append_all(hurried, headers, 1)
    loaded = hurried.load_many([Load(key(name), touch=True) for name in SESSIONS])
    redis_cluster.nodes[1].wake()
    hurried.close()
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
    with RedisServer({"cluster-enabled": "yes", "cluster-require-full-coverage": "no"}) as lone:
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
