"""The store notices that a Redis server has restarted: its append-only file may have been cut."""

from __future__ import annotations

import logging

import pytest
from cellkeeper_service.domain.store import Load
from cellkeeper_service.store.open import open_store

from testing.redis_server import RedisServer
from tests.contract.store.records import append, committed, create, inputs, key


@pytest.mark.parametrize("turn", ["stop", "kill"])
def test_a_restart_is_told_once(own_redis: RedisServer, turn: str, caplog: pytest.LogCaptureFixture) -> None:
    store = open_store(own_redis.url)
    store.check()
    at = committed(store, create(key()))
    assert store.facts.restarts == 0
    own_redis.stop() if turn == "stop" else own_redis.kill()
    with caplog.at_level(logging.WARNING):
        own_redis.restart()
        assert committed(store, append(key(), at, inputs(1)))
        store.load_many([Load(key(), touch=False)])
    assert store.facts.restarts == 1
    (message,) = [record.getMessage() for record in caplog.records if "has restarted" in record.getMessage()]
    assert f"127.0.0.1:{own_redis.port}" in message
    assert "BGREWRITEAOF" in message
    store.close()


def test_a_connection_that_broke_is_no_restart(own_redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    store = open_store(own_redis.url)
    at = committed(store, create(key()))
    with own_redis.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)
    committed(store, append(key(), at, inputs(1)))
    assert store.facts.restarts == 0
    assert "has restarted" not in caplog.text
    store.close()
