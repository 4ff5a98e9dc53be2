"""The outcomes of the official client's steps are distinguished: done, refused, late, and not sent at all."""

from __future__ import annotations

import asyncio
from pathlib import Path

from testing.forked_server import ForkedServer
from testing.redis_server import RedisServer

from .calls import Plan
from .official_calls import OfficialCalls

OPTIONS = ("--max-requests", "1", "--store-timeout-ms", "20000")
PLAN = Plan(1, 2, 2, 1, 1.0, 1.0, 1.0, deadline_s=20.0, times=1.0, official=True)


async def test_every_step_is_told_apart(counting_model: Path) -> None:
    with RedisServer() as redis, ForkedServer([counting_model], redis.url, OPTIONS) as server:
        calls = OfficialCalls(server.target, PLAN)
        try:
            await calls.open()
            for _ in range(4):
                done = await calls.send(20.0)
                assert done is not None
                assert (done.good, done.refused, done.late, done.other) == (1, 0, 0, "")
            redis.pause()
            waits = asyncio.create_task(calls.send(2.0))
            while await asyncio.to_thread(server.metric, "cellkeeper_queue_depth") < 1:
                pass
            refused = asyncio.create_task(calls.send(0.5))
            await asyncio.sleep(0)  # it takes the second session
            assert await calls.send(0.5) is None
            found = await refused
            assert found is not None
            assert (found.good, found.refused, found.advised, found.late, found.other) == (0, 1, 1, 0, "")
            late = await waits
            assert late is not None
            assert (late.good, late.refused, late.late, late.other) == (0, 0, 1, "")
            redis.wake()
            again = await calls.send(20.0)
            assert again is not None
            assert again.good == 1
        finally:
            await calls.close()
