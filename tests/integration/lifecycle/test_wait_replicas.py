"""With --wait-replicas, a step that no replica of Redis has is not acknowledged, however often it is sent."""

from __future__ import annotations

from pathlib import Path

from testing.forked_server import ForkedServer
from testing.redis_server import RedisServer
from tests.integration.rpc.calls import Api, Chunk, numbers

from .load import until
from .test_readiness import ALIVE, READY, probes

OPTIONS = ("--device", "cpu", "--max-batch", "64", "--wait-replicas", "1", "--store-timeout-ms", "3000")
NO_STORE = (503, "not ready: the store cannot be used: replicas that have what was read: 0, expected 1\n")


async def test_a_retry_is_no_acknowledgement(counting_model: Path) -> None:
    with (
        RedisServer({"repl-diskless-sync-delay": "0"}) as redis,
        RedisServer({"replicaof": f"127.0.0.1 {redis.port}"}) as replica,
        ForkedServer([counting_model], redis.url, OPTIONS) as one,
        ForkedServer([counting_model], redis.url, OPTIONS) as other,
        one.channel() as channel,
        other.channel() as other_channel,
    ):
        apis = Api(one.stub(channel)), Api(other.stub(other_channel))
        await until(lambda: probes(one) == (ALIVE, READY), 20)  # the replica is in step
        second = Chunk("s", numbers(2.0), apis[0].send("unary", Chunk("s", numbers(1.0), apis[0].open("s"))).after)
        replica.pause()
        for api in apis:
            result = api.send("unary", second)
            assert (result.code, result.reason) == ("UNAVAILABLE", "STORE_UNAVAILABLE"), result
            assert "replicas that have what was read: 0, expected 1" in result.message
        await until(lambda: probes(one)[1] == NO_STORE, 20)
        replica.wake()
        await until(lambda: probes(other) == (ALIVE, READY), 20)
        result = apis[1].send("unary", second)
        assert result.sums == [3.0]
        assert result.replayed  # the record has it, once
