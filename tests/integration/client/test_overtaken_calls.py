"""Calls that name a session's position, while other tasks of the same client step the session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from cellkeeper import AsyncClient, Closed, DeadlineExceeded, StepCompacted, StepConflict
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from .conftest import QUICK, until
from .counting_server import CountingServer, Refused

X = [1.0, 1.0]
PEEKED = [1.0, 7.0]


class OvertakingServer(CountingServer):
    """Holds peeks and forks back until that many time steps were applied. Its log is empty after each fork.

    held: how many it has held back.
    """

    least_steps = 0
    held = 0

    async def hold(self) -> None:
        self.held += 1
        await until(lambda: self.applied_steps >= self.least_steps)

    async def Step(self, request: Any, context: Any) -> Any:
        await self.hold()
        return await super().Step(request, context)

    async def StepBatch(self, request: Any, context: Any) -> Any:
        """Refuses every item of a group's peek, which then asks for each member by itself."""
        error = Refused("STEP_CONFLICT").wire()
        errors = [pb.ItemError(item=item, error=error) for item in range(len(request.sessions))]
        return pb.StepFrameReply(errors=errors, last=True)

    async def Fork(self, request: Any, context: Any) -> Any:
        await self.hold()
        item = request.items[0]
        record = self.records[item.source]
        record.compact(record.position.step)
        if item.position.step < record.checkpoint_step:
            error = Refused("STEP_COMPACTED", record.position).wire()
            return pb.SessionResults(results=[pb.SessionResult(error=error)])
        return await super().Fork(request, context)


@pytest.fixture
async def server() -> AsyncIterator[OvertakingServer]:
    server = OvertakingServer()
    await server.start()
    yield server
    await server.stop()


async def overtaken(
    server: OvertakingServer, call: Awaitable[Any], step: Callable[[], Awaitable[object]], sessions: int = 1
) -> Any:
    """Returns what `call` returns, which reaches the server before the step of these sessions and is answered after."""
    server.least_steps = server.applied_steps + sessions
    calling = asyncio.ensure_future(call)
    await until(lambda: server.held == sessions)
    await step()
    return await calling


async def test_a_peek_is_not_told_of_another_writer(client: AsyncClient, server: OvertakingServer) -> None:
    session = await client.session("a")
    peeked = await overtaken(server, session.peek(PEEKED), lambda: session.step(X))
    assert peeked.tolist() == [2, 8]  # what a step would return now
    assert session.position == server.records["a"].position


async def test_nor_that_of_a_group(client: AsyncClient, server: OvertakingServer) -> None:
    group = await client.group(["a", "b"])
    peeked = await overtaken(server, group.peek([PEEKED, PEEKED]), lambda: group.step([X, X]), sessions=2)
    assert peeked.tolist() == [[2, 8], [2, 8]]


async def test_a_peek_across_a_reset(client: AsyncClient, server: OvertakingServer) -> None:
    session = await client.session("a")
    await session.step(X)

    async def reset() -> None:
        await session.reset()
        await session.step(X)

    assert (await overtaken(server, session.peek(PEEKED), reset)).tolist() == [2, 8]


async def test_a_fork_of_the_present_position(client: AsyncClient, server: OvertakingServer) -> None:
    session = await client.session("a")
    branch = await overtaken(server, session.fork("b"), lambda: session.step(X))
    assert branch.position.step == 1


async def test_a_fork_of_a_position_that_its_caller_chose(client: AsyncClient, server: OvertakingServer) -> None:
    session = await client.session("a")
    with pytest.raises(StepCompacted):
        await overtaken(server, session.fork("b", position=session.position), lambda: session.step(X))


async def test_a_peek_of_a_session_that_is_closed_meanwhile(client: AsyncClient, server: OvertakingServer) -> None:
    """Its own step may have been applied, and with the session the client has forgotten that."""
    session = await client.session("a")

    async def step_and_close() -> None:
        server.lose_replies = 1
        stepping = asyncio.ensure_future(session.step(X))
        await until(lambda: server.applied_steps == 1)
        await session.close()
        await asyncio.wait([stepping])

    with pytest.raises(Closed):
        await overtaken(server, session.peek(PEEKED), step_and_close)


async def test_another_writer_still_is_one(client: AsyncClient, server: OvertakingServer) -> None:
    session, other = await client.session("a"), await client.session("a")
    with pytest.raises(StepConflict):
        await overtaken(server, session.peek(PEEKED), lambda: other.step(X))


async def test_earlier_steps_may_take_all_of_its_time(server: OvertakingServer) -> None:
    """Its own timeout is what is over: none of its arguments is at fault."""
    async with AsyncClient(f"127.0.0.1:{server.port}", backoff=QUICK) as client:
        session = await client.session("a")
        with pytest.raises(DeadlineExceeded, match="earlier steps"):
            await session.peek(X, timeout=1e-9)
