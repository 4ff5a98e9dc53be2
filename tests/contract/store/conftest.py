from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cellkeeper_service.domain.store import Store
from cellkeeper_service.store.memory import MemoryStore
from cellkeeper_service.store.open import open_store
from cellkeeper_service.store.sqlite.store import SqliteStore

from testing.redis_cluster import RedisCluster
from testing.redis_sentinel import RedisSentinels
from testing.redis_server import RedisServer
from tests.contract.store.cluster_records import PATIENCE_MS
from tests.contract.store.polled import PolledStore


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[RedisServer]:
    """One server for all tests that do not stop or reconfigure it. Without redis-server they fail."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_server(shared_redis: RedisServer) -> RedisServer:
    """The shared server, emptied."""
    with shared_redis.client() as client:
        for name in client.scan_iter("ck2:*"):
            client.delete(name)
    return shared_redis


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[RedisCluster]:
    """Three primaries for all tests that leave the nodes and their slots as they are."""
    with RedisCluster() as cluster:
        yield cluster


@pytest.fixture
def redis_cluster(shared_cluster: RedisCluster) -> RedisCluster:
    """The shared cluster, emptied."""
    shared_cluster.empty()
    return shared_cluster


@pytest.fixture
def cluster_store(redis_cluster: RedisCluster) -> Iterator[Store]:
    store = open_store(redis_cluster.url, timeout_ms=PATIENCE_MS)
    yield store
    store.close()


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A server for this test only, which it may kill, pause or fill."""
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="session")
def shared_sentinels() -> Iterator[RedisSentinels]:
    """A primary, a replica and three sentinels for all tests that leave them as they are."""
    with RedisSentinels(quick=True) as world:
        yield world


@pytest.fixture
def redis_sentinels(shared_sentinels: RedisSentinels) -> RedisSentinels:
    """The shared sentinels, their servers emptied."""
    shared_sentinels.empty()
    return shared_sentinels


REDIS = {"redis": "redis_server", "cluster": "redis_cluster", "sentinel": "redis_sentinels"}


def redis_url(request: pytest.FixtureRequest) -> str:
    server: RedisServer | RedisCluster | RedisSentinels = request.getfixturevalue(REDIS_WAYS[request.param])
    return server.url


POLLED = {"redis, polled": "redis_server", "sentinel, polled": "redis_sentinels"}  # commits are polled
REDIS_WAYS = {**REDIS, **POLLED}


@pytest.fixture(params=["memory", "sqlite", *REDIS_WAYS])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param in REDIS_WAYS:
        return redis_url(request)
    return "memory:" if request.param == "memory" else f"sqlite:{tmp_path / 'sessions.db'}"


@pytest.fixture
def store(store_url: str, request: pytest.FixtureRequest) -> Iterator[Store]:
    """Each of the stores, empty, with each way to commit."""
    store = open_store(store_url, timeout_ms=10_000)
    if request.node.callspec.params["store_url"] in POLLED:
        store.check()  # opens a connection, without which no commit can begin
        polled = PolledStore(store)
        yield polled
        assert polled.pending or not polled.called, "none of the commits was begun"
    else:
        yield store
    store.close()


@pytest.fixture(params=["sqlite", *REDIS])
def durable_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of each store that several processes can open."""
    if request.param in REDIS:
        return redis_url(request)
    return f"sqlite:{tmp_path / 'sessions.db'}"


@pytest.fixture
def memory_store() -> Iterator[MemoryStore]:
    store = MemoryStore()
    yield store
    store.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of a SQLite store, in folders that are not there yet."""
    return tmp_path / "deep" / "er" / "sessions.db"


@pytest.fixture
def sqlite_store(path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(path, timeout_ms=200)
    yield store
    store.close()
