"""Commits that begin on an idle Redis connection: only `finish` may block, and failures are as in commit_many."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from cellkeeper_service.domain.non_blocking import NonBlockingStore, PendingCommit, Stage
from cellkeeper_service.domain.store import Commit, Outcome, Store
from cellkeeper_service.store.open import open_store
from cellkeeper_service.store.redis import wire

from testing.redis_cluster import RedisCluster
from testing.redis_server import RedisServer
from tests.contract.store.polled import wait
from tests.contract.store.records import append, committed, create, inputs, key, log_of

TIMEOUT_MS = 1000  # it passes where the server does not answer, and not where it does, on a busy machine either
PATIENCE_MS = 20_000  # where it must not pass
LARGE = 40  # commits of a megabyte: more than the socket buffers of both sides hold


@pytest.fixture
def own_store(own_redis: RedisServer) -> Iterator[Store]:
    """A store with one idle connection, on a server that has loaded the script."""
    store = open_store(own_redis.url, timeout_ms=PATIENCE_MS)
    committed(store, create(key("first")))
    yield store
    store.close()


@pytest.fixture
def hurried_store(own_redis: RedisServer, own_store: Store) -> Iterator[Store]:
    """Another, which waits less long."""
    store = open_store(own_redis.url, timeout_ms=TIMEOUT_MS)
    committed(store, create(key("second")))
    yield store
    store.close()


def begin(store: Store, *commits: Commit) -> PendingCommit | None:
    assert isinstance(store, NonBlockingStore)
    return store.begin_commit(commits)


def started(store: Store, *commits: Commit) -> PendingCommit:
    call = begin(store, *commits)
    assert call is not None, "there was no connection at rest"
    return call


def outcomes(call: PendingCommit) -> list[Outcome]:
    return [result.outcome for result in call.finish()]


def test_nothing_is_started_without_a_connection_at_rest(own_redis: RedisServer) -> None:
    store = open_store(own_redis.url)
    assert begin(store, create(key())) is None
    committed(store, create(key()))
    first = started(store, create(key("a")))
    assert begin(store, create(key("b"))) is None  # the only connection is in use
    assert wait(first) is Stage.DONE
    assert outcomes(first) == [Outcome.COMMITTED]
    store.close()
    assert begin(store, create(key("c"))) is None


def test_without_the_socket_of_redis_py_every_call_takes_its_own_way(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "SOCKET", "_renamed")
    store = open_store(own_redis.url)
    header = committed(store, create(key()))
    assert begin(store, append(key(), header, inputs(1))) is None
    committed(store, append(key(), header, inputs(1)))
    assert log_of(store, key()) == inputs(1)
    store.close()


def test_a_cluster_begins_nothing(redis_cluster: RedisCluster) -> None:
    store = open_store(redis_cluster.url)
    store.check()
    assert begin(store, create(key())) is None
    store.close()


def test_a_connection_that_the_server_has_closed_is_made_anew(own_redis: RedisServer, own_store: Store) -> None:
    header = committed(own_store, create(key()))
    with own_redis.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)
    assert begin(own_store, append(key(), header, inputs(1))) is None
    committed(own_store, append(key(), header, inputs(1)))
    assert begin(own_store, create(key("other"))) is not None


def test_a_server_killed_before_its_reply_is_unknown(own_redis: RedisServer, own_store: Store) -> None:
    header = committed(own_store, create(key()))
    own_redis.pause()
    call = started(own_store, append(key(), header, inputs(1)), create(key("b")))
    assert call.advance() is Stage.WAITING
    own_redis.kill()
    assert wait(call) is Stage.DONE
    results = call.finish()
    assert [result.outcome for result in results] == [Outcome.UNKNOWN] * 2
    assert "Redis did not answer: " in results[0].message
    own_redis.restart()
    assert begin(own_store, create(key("c"))) is None
    committed(own_store, create(key("c")))


def test_a_connection_that_is_reset_once_it_was_taken_is_unknown(
    own_redis: RedisServer, own_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = own_store._servers.link(0)
    taken = link.take_idle()
    own_redis.pause()
    taken.write(b"*")  # a socket that is closed with unread bytes is reset
    own_redis.kill()
    monkeypatch.setattr(link, "take_idle", lambda: taken)
    call = started(own_store, create(key()))
    assert call.stage is Stage.DONE
    (result,) = call.finish()
    assert result.outcome is Outcome.UNKNOWN
    assert "Redis did not answer: " in result.message


def test_a_paused_server_is_unknown_and_its_late_reply_meets_nobody(
    own_redis: RedisServer, hurried_store: Store
) -> None:
    header = committed(hurried_store, create(key()))
    late = append(key(), header, inputs(1))
    own_redis.pause()
    call = started(hurried_store, late)
    assert wait(call) is Stage.WAITING
    (result,) = call.finish()
    own_redis.wake()
    assert result.outcome is Outcome.UNKNOWN
    assert "timeout" in result.message
    assert begin(hurried_store, late) is None  # its connection is closed
    while log_of(hurried_store, key()) != inputs(1):
        pass
    assert outcomes(_waited(started(hurried_store, late))) == [Outcome.CONFLICT]


def test_a_server_that_forgot_the_script_is_sent_it_again(own_redis: RedisServer, own_store: Store) -> None:
    header = committed(own_store, create(key()))
    with own_redis.client() as client:
        client.script_flush()
    call = started(own_store, append(key(), header, inputs(1)))
    assert wait(call) is Stage.BLOCKED  # a thread has to do the rest
    assert outcomes(call) == [Outcome.COMMITTED]
    assert log_of(own_store, key()) == inputs(1)
    assert begin(own_store, create(key("other"))) is not None


def test_a_server_that_says_no_refuses(own_redis: RedisServer, own_store: Store) -> None:
    header = committed(own_store, create(key()))
    with own_redis.client() as client:
        client.config_set("min-replicas-to-write", "1")
    call = started(own_store, append(key(), header, inputs(1)))
    wait(call)
    assert outcomes(call) == [Outcome.REFUSED]
    assert log_of(own_store, key()) == b""


@pytest.mark.parametrize("killed", [False, True])
def test_what_the_socket_takes_in_part_is_sent_by_a_thread(own_redis: RedisServer, killed: bool) -> None:
    store = open_store(own_redis.url, timeout_ms=20_000)
    store.check()
    commits = [create(key(f"s{number}"), checkpoint=bytes([number]) * 1_000_000) for number in range(LARGE)]
    own_redis.pause()
    call = started(store, *commits)
    assert call.stage is Stage.BLOCKED
    if killed:
        own_redis.kill()
        assert outcomes(call) == [Outcome.UNKNOWN] * LARGE
        own_redis.restart()
    else:
        own_redis.wake()
        assert outcomes(call) == [Outcome.COMMITTED] * LARGE
        assert outcomes(_waited(started(store, *commits[:1]))) == [Outcome.CONFLICT]  # and the connection is good
    store.close()


def test_too_few_replicas_are_waited_for_and_unknown(own_redis: RedisServer) -> None:
    store = open_store(own_redis.url, timeout_ms=TIMEOUT_MS, wait_replicas=1)
    store.commit_many([create(key("first"))])  # now the server knows the script
    call = started(store, create(key()))
    assert wait(call) is Stage.DONE
    (result,) = call.finish()
    assert result.outcome is Outcome.UNKNOWN
    assert "replicas" in result.message
    store.close()


def _waited(call: PendingCommit) -> PendingCommit:
    wait(call)
    return call
