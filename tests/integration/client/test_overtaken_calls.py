"""Calls that name a session's position, while other tasks of the same client reset the session.

Steps cannot overtake them: see test_calls_in_order.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from cellkeeper import AsyncClient, AsyncSession, DeadlineExceeded, GenerationChanged, Position, StepConflict
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from .conftest import QUICK, until
from .counting_server import CountingServer
from .counting_wire import Refused

X = [1.0, 1.0]
PEEKED = [1.0, 7.0]


class OvertakingServer(CountingServer):
    """Holds peeks and forks back until that many time steps were applied.

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

    async def Fork(self, request: Any, context: Any) -> Any:
        await self.hold()
        item = request.items[0]
        standing = self.records[item.source].position
        if item.position.generation != standing.generation:
            error = Refused("GENERATION_CHANGED", standing).wire()
            return pb.SessionResults(results=[pb.SessionResult(error=error)])
        return await super().Fork(request, context)


@pytest.fixture
async def server() -> AsyncIterator[OvertakingServer]:
    server = OvertakingServer()
    await server.start()
    yield server
    await server.stop()


async def overtaken(server: OvertakingServer, call: Awaitable[Any], others: Callable[[], Awaitable[object]]) -> Any:
    """Returns what `call` returns, which reaches the server before the one step of `others`, and is answered after."""
    server.least_steps = server.applied_steps + 1
    calling = asyncio.ensure_future(call)
    await until(lambda: server.held == 1)
    await others()
    return await calling


def reset(session: AsyncSession) -> Callable[[], Awaitable[object]]:
    """Resets the session, and steps it."""

    async def others() -> None:
        await session.reset()
        await session.step(X)

    return others


async def test_a_peek_is_not_told_of_another_writer(client: AsyncClient, server: OvertakingServer) -> None:
    session = await client.session("a")
    await session.step(X)
    peeked = await overtaken(server, session.peek(PEEKED), reset(session))
    assert peeked.tolist() == [2, 8]  # what a step would return now
    assert session.position == server.records["a"].position


async def test_a_fork_of_the_present_position(client: AsyncClient, server: OvertakingServer) -> None:
    session = await client.session("a")
    await session.step(X)
    branch = await overtaken(server, session.fork("b"), reset(session))
    assert branch.position.step == 1
    assert server.held == 2


async def test_a_fork_of_a_position_that_its_caller_chose(client: AsyncClient, server: OvertakingServer) -> None:
    session = await client.session("a")
    await session.step(X)
    with pytest.raises(GenerationChanged):
        await overtaken(server, session.fork("b", position=session.position), reset(session))
    assert server.held == 1


async def test_another_writer_still_is_one(client: AsyncClient, server: OvertakingServer) -> None:
    session, other = await client.session("a"), await client.session("a")
    with pytest.raises(StepConflict):
        await overtaken(server, session.peek(PEEKED), lambda: other.step(X))


async def test_steps_made_after_a_peek_wait_while_lost_steps_are_replayed_for_it(
    client: AsyncClient, server: OvertakingServer
) -> None:
    session = await client.session("a")
    for _ in range(3):
        await session.step(X)
    server.records["a"].cut(2)
    peeked, stepped = await asyncio.gather(session.peek(PEEKED), session.step(X))
    assert (peeked.tolist(), stepped.tolist()) == ([4, 10], [4, 4])


async def test_earlier_steps_may_take_all_of_its_time(server: OvertakingServer) -> None:
    """Its own timeout is what is over: none of its arguments is at fault."""
    async with AsyncClient(f"127.0.0.1:{server.port}", backoff=QUICK) as client:
        session = await client.session("a")
        with pytest.raises(DeadlineExceeded, match="earlier steps"):
            await session.peek(X, timeout=1e-9)


class ResettingServer(CountingServer):
    """Answers a reset only after `go`. resets: how many it has carried out."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()
        self.resets = 0

    async def Reset(self, request: Any, context: Any) -> Any:
        answer = await super().Reset(request, context)
        self.resets += 1
        await self.go.wait()
        return answer


@pytest.fixture
async def resetting_server() -> AsyncIterator[ResettingServer]:
    server = ResettingServer()
    await server.start()
    yield server
    server.go.set()
    await server.stop()


async def reset_under_way(
    client: AsyncClient, server: ResettingServer
) -> tuple[AsyncSession, asyncio.Future[Position]]:
    """Returns a session whose reset is carried out and not answered, and whose next frame is lost."""
    session = await client.session("a")
    resetting = asyncio.ensure_future(session.reset())
    await until(lambda: server.resets == 1)
    server.cut_frames = 1
    return session, resetting


@pytest.mark.parametrize(
    ("call", "result"),
    [
        (lambda session: session.peek(PEEKED), [1, 7]),
        (lambda session: session.state(), [[0, 0]]),
        (lambda session: session.fork("b"), 0),
        (lambda session: session.settle(), 1),
    ],
    ids=["peek", "state", "fork", "settle"],
)
async def test_a_call_behind_a_step_whose_generation_a_reset_has_ended(
    resetting_server: ResettingServer, call: Callable[[AsyncSession], Awaitable[Any]], result: Any
) -> None:
    """The step's first attempt is lost and its second one refused, so that it stays unknown whether it was applied."""
    server = resetting_server
    async with AsyncClient(f"127.0.0.1:{server.port}", backoff=QUICK) as client:
        session, resetting = await reset_under_way(client, server)
        step, calling = asyncio.ensure_future(session.step(X)), asyncio.ensure_future(call(session))
        with pytest.raises(GenerationChanged):
            await step
        server.go.set()
        got = await calling
        await resetting
    if isinstance(got, AsyncSession):
        assert got.position.step == result
    elif isinstance(got, tuple):
        assert len(got) == result
    else:
        assert (got["h"] if isinstance(got, dict) else got).tolist() == result


@pytest.mark.parametrize(
    "call", [lambda session: session.peek(PEEKED, timeout=0.1), lambda session: session.state(timeout=0.1)]
)
async def test_it_does_not_wait_for_the_reset_for_longer_than_its_own_timeout(
    resetting_server: ResettingServer, call: Callable[[AsyncSession], Awaitable[Any]]
) -> None:
    server = resetting_server
    async with AsyncClient(f"127.0.0.1:{server.port}", backoff=QUICK) as client:
        session, resetting = await reset_under_way(client, server)
        step = asyncio.ensure_future(session.step(X))
        await asyncio.sleep(0)  # it comes before the call
        with pytest.raises((GenerationChanged, DeadlineExceeded)):
            await call(session)
        assert not resetting.done()
        with pytest.raises(GenerationChanged):
            await step
        server.go.set()
        assert await resetting == session.position
