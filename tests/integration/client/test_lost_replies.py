"""The asyncio client retries what is lost or refused for a moment, and no step counts twice."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from cellkeeper import AsyncClient, GroupError, InvalidArgument, ServerError, StepGap
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from .counting_server import CountingServer
from .counting_wire import Refused
from .ones import ONE, counted, take


async def test_lost_replies_are_retried_and_not_doubled(client: AsyncClient, server: CountingServer) -> None:
    session = await client.open("a")
    server.lose_replies = 2
    reply = await session.step_reply(ONE)
    assert reply.output.tolist() == [1, 1]
    assert reply.replayed
    assert server.applied_steps == 1
    assert client.counters.retries == client.counters.stream_reconnects == 2
    assert len(set(server.seen)) == 1  # the same bytes at the same position, three times


@pytest.mark.parametrize("hook", ["lose_replies", "cut_frames"])
async def test_a_stream_cut_midway(client: AsyncClient, server: CountingServer, hook: str) -> None:
    session = await client.open("a")
    samples, got = iter([ONE] * 100), []
    async for y in session.stream(samples):
        got.append(y.tolist())
        if len(got) in (10, 40, 41):
            setattr(server, hook, 1)
    assert got == counted(1, 100)
    assert server.applied_steps == 100
    assert client.counters.stream_reconnects >= 2


async def test_many_sessions_survive_a_cut(client: AsyncClient, server: CountingServer) -> None:
    sessions = [await client.open(f"s{index}") for index in range(20)]
    server.lose_replies = 3
    results = await asyncio.gather(*(take(session, [ONE] * 30) for session in sessions))
    assert results == [counted(1, 30)] * 20
    assert server.applied_steps == 600


@pytest.mark.parametrize("reason", ["QUEUE_FULL", "STORE_UNAVAILABLE", "DRAINING", "COMMIT_CONFLICT"])
async def test_passing_refusals_are_tried_again(client: AsyncClient, server: CountingServer, reason: str) -> None:
    session = await client.open("a")
    server.refusals = [Refused(reason, delay_ms=1) for _ in range(5)]
    assert await take(session, [ONE] * 20) == counted(1, 20)
    assert server.applied_steps == 20
    assert client.counters.retries >= 5


async def test_the_advised_delay_is_kept(client: AsyncClient, server: CountingServer) -> None:
    session = await client.open("a")
    server.refusals = [Refused("QUEUE_FULL", delay_ms=60) for _ in range(2)]
    started = asyncio.get_running_loop().time()
    await session.step(ONE)
    assert asyncio.get_running_loop().time() - started >= 0.12


async def test_a_rejected_item_in_the_middle_of_a_pipeline(client: AsyncClient, server: CountingServer) -> None:
    session = await client.open("a")
    values = [1.0, 1.0, 1e6, 1.0, 1.0]
    results = await asyncio.gather(*(session.step([1.0, value]) for value in values), return_exceptions=True)
    assert [y.tolist() for y in results[:2] if not isinstance(y, BaseException)] == counted(1, 2)
    assert isinstance(results[2], InvalidArgument)
    assert results[2].reason == "NON_FINITE_RESULT"
    for behind in results[3:]:
        assert isinstance(behind, StepGap)
        assert behind.__cause__ is results[2]
    assert (await session.step(ONE)).tolist() == [3, 3]
    assert server.applied_steps == 3


async def test_a_stream_raises_behind_the_answers_before(client: AsyncClient) -> None:
    session = await client.open("a")
    got: list[list[float]] = []

    async def collect(*samples: list[float]) -> None:
        got.clear()
        async for y in session.stream(samples):
            got.append(y.tolist())  # noqa: PERF401  (kept when the stream raises)

    with pytest.raises(InvalidArgument):
        await collect(ONE, ONE, [1.0, 1e6], ONE)
    assert got == counted(1, 2)
    with pytest.raises(InvalidArgument, match="inputs"):
        await collect(ONE, [1.0], ONE)
    assert got == counted(3, 3)


async def test_internal_errors_are_reported_not_repeated(client: AsyncClient, server: CountingServer) -> None:
    session = await client.open("a")
    server.refusals = [Refused("INTERNAL_ERROR")]
    with pytest.raises(Exception, match="INTERNAL_ERROR") as caught:
        await session.step(ONE)
    assert type(caught.value).__name__ == "ServerError"
    assert (await session.step(ONE)).tolist() == [1, 1]


class Forgetful(CountingServer):
    """Leaves the items of calls without results."""

    async def Reset(self, request: Any, context: Any) -> Any:
        return pb.SessionResults()

    async def Delete(self, request: Any, context: Any) -> Any:
        return pb.SessionResults()

    async def OpenMany(self, request: Any, context: Any) -> Any:
        return pb.OpenManyResponse()


async def test_an_item_without_a_result_is_the_servers_error() -> None:
    server = Forgetful()
    async with AsyncClient(await server.start()) as client:
        session = await client.open("a")
        for call in (session.reset(), session.delete(), client.delete_many(client.sessions()), client.group(["b"])):
            with pytest.raises((ServerError, GroupError), match="sent 0 results to 1 items"):
                await call
    await server.stop()
