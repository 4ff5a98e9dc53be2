"""The Redis layout: keys, TTLs, memory, and the check at start."""

from __future__ import annotations

import logging
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from cellkeeper_service.domain.record import SessionKey
from cellkeeper_service.domain.store import DamagedRecord, Load, Outcome, Store, StoreError
from cellkeeper_service.store.open import open_store
from cellkeeper_service.store.redis.keys import BUCKETS, SUCCESSOR, redis_key, session_key
from cellkeeper_service.store.redis.layout import fixed_of
from cellkeeper_service.store.redis.script import script
from hypothesis import given
from hypothesis import strategies as st

from testing.redis_cluster import RedisCluster, slot_of
from testing.redis_server import RedisServer
from tests.contract.store.records import HOUR_MS, append, committed, create, header, inputs, key, start

STATE_BYTES = 2048  # of a 2x128 LSTM
TOKENS = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.fixture
def store(redis_server: RedisServer) -> Iterator[Store]:
    store = open_store(redis_server.url)
    yield store
    store.close()


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis_server.client() as client:
        yield client


@given(TOKENS, TOKENS, TOKENS)
def test_a_key_can_be_read_back(tenant: str, model: str, session: str) -> None:
    at = SessionKey(tenant, model, session)
    assert session_key(redis_key(at)) == at


def test_keys_are_as_documented() -> None:
    assert redis_key(SessionKey("", "weather", "pump:17")) == b"ck2:{085}::weather:pump:17"
    assert redis_key(SessionKey("a:b", "*", "{x}")).endswith(b"}:a%3Ab:%2A:{x}")
    buckets = {redis_key(key(f"s{n}"))[4:9] for n in range(5000)}
    assert len(buckets) == BUCKETS


@pytest.mark.parametrize("name", [b"", b"ck2:x", b"ck3:{001}:t:m:s", b"ck2:{1}:t:m:s", b"ck2:{001}:t:m"])
def test_other_keys_are_not_ours(name: bytes) -> None:
    with pytest.raises(ValueError, match="key"):
        session_key(name)


def test_the_script_reads_the_ttl_where_the_header_has_it() -> None:
    packed = header(start(), 0, ttl_ms=0x1122334455667788).packed
    offset = re.search(rb"TTL_IN_FIXED = ([0-9]+)", script("write").text)
    assert offset is not None
    assert struct.unpack_from("<Q", fixed_of(packed), int(offset[1])) == (0x1122334455667788,)


def test_one_key_holds_a_record_and_others_are_left_alone(store: Store, client: redis.Redis) -> None:
    client.set("ck2:other", "theirs")
    committed(store, create(key()))
    assert sorted(client.keys("*")) == [b"ck2:other", redis_key(key())]
    assert client.ttl(redis_key(key())) == -1
    assert [at.session for at, _ in store.scan("", "weather", "", "", 10).sessions] == ["pump-17"]


def test_the_ttl_is_written_only_below_nine_tenths(store: Store, client: redis.Redis) -> None:
    name = redis_key(key())
    before = committed(store, create(key(), ttl_ms=HOUR_MS))
    assert 0.99 * HOUR_MS < client.pttl(name) <= HOUR_MS
    for share, written in ((0.95, False), (0.85, True)):
        client.pexpire(name, int(share * HOUR_MS))
        before = committed(store, append(key(), before, inputs(1)))
        assert (client.pttl(name) > 0.99 * HOUR_MS) is written
        client.pexpire(name, int(share * HOUR_MS))
        store.load_many([Load(key(), touch=False)])
        assert client.pttl(name) <= share * HOUR_MS
        store.load_many([Load(key(), touch=True)])
        assert (client.pttl(name) > 0.99 * HOUR_MS) is written


def test_memory_of_a_session(store: Store, client: redis.Redis) -> None:
    """With a log of 16 steps of 128 bytes: at most 2.6 times the state, and less than twice on average."""
    committed(store, create(key("first")))  # a connection's first write, which is pushed twice
    before = committed(store, create(key(), checkpoint=bytes(range(256)) * (STATE_BYTES // 256)))
    taken = []
    for _ in range(16):
        before = committed(store, append(key(), before, inputs(1, 32)))
        taken.append(client.memory_usage(redis_key(key()), samples=0) or 0)
    assert max(taken) <= 2.6 * STATE_BYTES
    assert sum(taken) / len(taken) < 2 * STATE_BYTES


def test_a_server_that_may_evict_is_refused(own_redis: RedisServer) -> None:
    store = open_store(own_redis.url)
    store.check()
    with own_redis.client() as client:
        for policy in ("allkeys-lru", "volatile-ttl"):
            client.config_set("maxmemory-policy", policy)
            with pytest.raises(StoreError, match=f"{policy}.*noeviction"):
                store.check()
        client.config_set("maxmemory-policy", "noeviction")
    store.check()
    store.close()


def test_a_server_that_may_evict_since_it_restarted_is_refused(own_redis: RedisServer) -> None:
    """As after a restart with another configuration, or when another server has taken over."""
    store = open_store(own_redis.url)
    store.check()
    before = committed(store, create(key()))
    own_redis.stop()
    own_redis.options["maxmemory-policy"] = "allkeys-lru"
    own_redis.restart()
    store.load_many([Load(key(), False)])  # over the connection from before the restart
    (found,) = store.load_many([Load(key(), False)])
    assert isinstance(found, StoreError)
    assert "allkeys-lru" in str(found)
    (result,) = store.commit_many([append(key(), before, inputs(1, 32))])
    assert (result.outcome, "allkeys-lru" in result.message) == (Outcome.UNREACHED, True)
    with own_redis.client() as client:
        client.config_set("maxmemory-policy", "noeviction")
    committed(store, append(key(), before, inputs(1, 32)))
    store.close()


def test_records_of_a_later_layout_are_refused_and_not_listed(store: Store, client: redis.Redis) -> None:
    store.check()
    committed(store, create(key()))
    page = store.scan("", "weather", "", "", 10)
    client.rpush(SUCCESSOR, "ck3")
    with pytest.raises(StoreError, match="layout 'ck3', expected ck2; start the Cellkeeper version"):
        store.check()
    assert store.scan("", "weather", "", "", 10) == page
    client.delete(SUCCESSOR)
    client.set(SUCCESSOR, "none of ours")
    with pytest.raises(StoreError, match=r"key ck2:\{000\}: WRONGTYPE"):
        store.check()
    client.delete(SUCCESSOR)
    store.check()


def test_a_listing_says_what_keys_of_another_type_are_and_skips_those_of_no_session(
    store: Store, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    client.set(redis_key(key()), "none of ours")
    client.set("ck2:{abc}::weather:s", "none of ours")
    ((listed, found),), _ = store.scan("", "weather", "", "", 10)
    assert listed == key()
    assert isinstance(found, DamagedRecord)
    assert "its key in Redis is not a list (WRONGTYPE" in str(found)
    assert "Redis has a key that belongs to no session: key: got b'ck2:{abc}::weather:s'" in caplog.text


def test_records_of_a_later_layout_are_refused_on_a_cluster(redis_cluster: RedisCluster) -> None:
    store = open_store(redis_cluster.url)
    store.check()
    owner = redis_cluster.owner(slot_of(SUCCESSOR))
    redis_cluster.command(owner, "RPUSH", SUCCESSOR, "ck3")
    with pytest.raises(StoreError, match="layout 'ck3'"):
        store.check()
    store.close()


def test_a_server_without_persistence_is_warned_of(own_redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    store = open_store(own_redis.url, wait_replicas=2)
    with own_redis.client() as client, caplog.at_level(logging.WARNING):
        client.config_set("appendonly", "no")
        store.check()
    assert "appendonly yes" in caplog.text
    assert "Redis has 0 connected replicas, expected wait_replicas (2)" in caplog.text
    store.close()


def test_a_cluster_node_is_refused() -> None:
    with RedisServer({"cluster-enabled": "yes"}) as server:
        store = open_store(server.url)
        with pytest.raises(StoreError, match="cluster"):
            store.check()
        store.close()


def test_a_server_that_does_not_know_auth_is_not_quoted_with_the_password(tmp_path: Path) -> None:
    (tmp_path / "more.conf").write_text("rename-command AUTH nothing\n")
    with RedisServer({"include": str(tmp_path / "more.conf")}) as server:
        store = open_store(server.url.replace("//", "//app:secret@"))
        with pytest.raises(StoreError, match="unknown command 'AUTH'; allow it there, or remove") as refused:
            store.check()
        assert "secret" not in str(refused.value)
        assert "secret" not in str(store.load_many([Load(key(), False)]))
        store.close()


def test_a_socket_file() -> None:
    with RedisServer({"unixsocket": "redis.sock"}) as server:
        store = open_store(f"unix://{server.folder}/redis.sock?db=1")
        store.check()
        before = committed(store, create(key()))
        committed(store, append(key(), before, inputs(1)))
        store.close()
