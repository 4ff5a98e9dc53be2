"""Many cold sessions with large logs: their neighbours are served meanwhile, and a log is bounded in bytes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_service.domain.record import SessionKey
from cellkeeper_service.store.redis.keys import redis_key

from testing.bundles import counting_bundle
from testing.forked_server import ForkedServer
from testing.redis_server import RedisServer

from .calls import Api, Chunk, Refused, frame_message, from_wire
from .vault import Vault

FEATURES = 512
LARGE = 12
LARGE_STEPS = 2304  # of 2 KiB: more than LOAD_BYTES


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer({"appendonly": "no"}) as server:
        yield server


def loads_of(server: ForkedServer) -> float:
    """Returns the number of load calls to the store so far."""
    return server.metric("cellkeeper_store_round_trips_total", call="load")


def test_neighbours_of_large_records_are_served(redis: RedisServer, tmp_path: Path) -> None:
    """All are requested at once, and each large one is read by its own call.

    So no call takes long, whatever else is requested, and the neighbours get their turn in between. The store's timeout
    is not tested here: a busy machine takes as long for one as an idle one for all.
    """
    bundle = counting_bundle(tmp_path / "wide", name="count", features=FEATURES)
    inputs = np.zeros((LARGE_STEPS, FEATURES), np.float32)
    with ForkedServer([bundle], redis.url, ["--store-timeout-ms", "30000"]) as server, server.channel() as channel:
        api = Api(server.stub(channel))
        with Vault(server.store, api, np.zeros((1, FEATURES), np.float32)) as vault:
            vault.put_copies([f"large-{index}" for index in range(LARGE)], inputs)
            small = [f"small-{index}" for index in range(LARGE)]
            vault.put_copies(small, inputs[:2])
        begin, calls = threading.Barrier(LARGE + 1), loads_of(server)

        def look(name: str) -> str:
            begin.wait(30)
            try:
                return str(api.call("GetSession", pb.GetSessionRequest(model="count", session=name), 60).position.step)
            except Refused as refused:
                return refused.result.reason

        with ThreadPoolExecutor(LARGE) as threads:
            looks = threads.map(look, [f"large-{index}" for index in range(LARGE)])
            begin.wait(30)
            chunks = [Chunk(name, inputs[:1]) for name in small]
            got = api.send_frame("batch", frame_message("count", chunks))
            found = list(looks)
        assert {(result.code, result.reason, result.message) for result in got} == {("OK", "", "")}
        assert found == [str(LARGE_STEPS)] * LARGE
        assert loads_of(server) - calls > LARGE


def test_a_log_is_bounded_in_bytes(tmp_path: Path, session: str) -> None:
    """The model's time step has 64 bytes: 128 KiB hold 2,048 steps, although 4,096 would be allowed."""
    bundle = counting_bundle(tmp_path / "m", name="count", features=16)
    options = ["--max-log-bytes", str(128 * 1024), "--max-message-bytes", str(64 * 1024)]
    with ForkedServer([bundle], "memory:", options) as server, server.channel() as channel:
        api = Api(server.stub(channel))
        assert api.call("GetModel", pb.GetModelRequest(model="count")).max_log_steps == 2048
        at, chunk = api.open(session), np.ones((256, 16), np.float32)
        for _ in range(8):
            at = api.send("unary", Chunk(session, chunk, at, acked=0)).after
        behind = api.send("unary", Chunk(session, chunk[:1], at, acked=0))
        assert (behind.code, behind.reason, behind.field) == ("RESOURCE_EXHAUSTED", "ACK_BEHIND", "acked")
        assert "2048" in behind.message
        assert api.send("unary", Chunk(session, chunk, at)).sums[-1] == 2304


def test_opening_with_one_ttl_and_another_leaves_nothing_behind(
    redis: RedisServer, counting_model: Path, session: str
) -> None:
    """As when two programs open an idle session in turn. Each open reads all that the others have left."""
    key = redis_key(SessionKey("", "count", session))
    with ForkedServer([counting_model], redis.url) as server, server.channel() as channel, redis.client() as client:
        api = Api(server.stub(channel))
        at = api.send("unary", Chunk(session, np.ones((3, 1), np.float32), api.open(session), acked=0)).after
        for ttl_ms in (90_000, 80_000, 0) * 10:
            reply = api.opened(session, ttl_ms=ttl_ms)
            assert (reply.ttl_ms, from_wire(reply.position)) == (ttl_ms, at)
            assert client.llen(key) < 8
            left_ms = client.pttl(key)
            assert left_ms == -1 if ttl_ms == 0 else 0.9 * ttl_ms <= left_ms <= ttl_ms
        assert api.send("unary", Chunk(session, np.ones((1, 1), np.float32), at)).sums == [4]
