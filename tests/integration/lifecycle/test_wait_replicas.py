"""With --wait-replicas, a step that no replica of Redis has is not acknowledged, however often it is sent."""

from __future__ import annotations

from pathlib import Path

from testing.forked_server import ForkedServer
from testing.redis_server import RedisServer
from tests.integration.rpc.calls import WAYS, Api, Chunk, numbers

from .load import until
from .test_readiness import ALIVE, READY, probes

OPTIONS = ("--device", "cpu", "--max-batch", "64", "--wait-replicas", "1", "--store-timeout-ms", "400")

NO_STORE = (503, "not ready: the store does not answer\n")


async def test_a_retry_is_no_acknowledgement(counting_model: Path) -> None:
    with (
        RedisServer({"repl-diskless-sync-delay": "0"}) as redis,
        RedisServer({"replicaof": f"127.0.0.1 {redis.port}"}) as replica,
        replica.client() as client,
    ):
        await until(lambda: client.info("replication")["master_link_status"] == "up", 20)
        with (
            ForkedServer([counting_model], redis.url, OPTIONS) as one,
            ForkedServer([counting_model], redis.url, OPTIONS) as other,
            one.channel() as channel,
            other.channel() as other_channel,
        ):
            apis = Api(one.stub(channel)), Api(other.stub(other_channel))
            at = {way: apis[0].send(way, Chunk(way, numbers(1.0), apis[0].open(way))).after for way in WAYS}
            replica.pause()
            for api in apis:
                for way in WAYS:
                    result = api.send(way, Chunk(way, numbers(2.0), at[way]))
                    assert (result.code, result.reason) == ("UNAVAILABLE", "STORE_UNAVAILABLE"), result
                    assert "replicas" in result.message
            await until(lambda: [probes(server)[1] for server in (one, other)] == [NO_STORE] * 2, 10)
            replica.wake()
            await until(lambda: probes(other) == (ALIVE, READY), 10)
            for way in WAYS:
                result = apis[1].send(way, Chunk(way, numbers(2.0), at[way]))
                assert result.sums == [3.0]
                assert result.replayed  # the record has it once
