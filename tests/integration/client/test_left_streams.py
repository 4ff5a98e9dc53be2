"""A stream that its caller leaves before the end."""

from __future__ import annotations

import asyncio
import threading

import pytest
from cellkeeper import AsyncClient, AsyncSession

from .conftest import until
from .counting_server import CountingServer

X = [1.0, 1.0]


@pytest.fixture
async def session(server: CountingServer) -> AsyncSession:
    client = AsyncClient(f"127.0.0.1:{server.port}", window_steps=4)
    return await client.session("pump")


@pytest.mark.filterwarnings("ignore:an AsyncClient was not closed")
class TestOfAsyncio:
    async def test_the_session_continues_at_once(self, session: AsyncSession) -> None:
        async for _ in session.stream([X] * 20):
            break
        y = await session.step(X)
        assert y.tolist() == [session.position.step] * 2
        assert session.unsettled == ()

    async def test_replies_too(self, session: AsyncSession) -> None:
        async for reply in session.stream_replies([X] * 20):
            assert session.last_reply is reply
            break
        assert (await session.step_reply(X)).position.step == session.position.step

    async def test_it_may_be_closed(self, session: AsyncSession) -> None:
        stream = session.stream([X] * 20)
        assert (await anext(stream)).tolist() == X
        assert (await stream.asend(None)).tolist() == [2.0, 2.0]
        await stream.aclose()
        await stream.aclose()
        assert [y async for y in stream] == []
        assert (await session.step(X)).tolist() == [session.position.step] * 2

    async def test_it_is_not_closed_under_a_task_that_reads_it(
        self, session: AsyncSession, server: CountingServer
    ) -> None:
        server.gate.clear()
        stream = session.stream([X] * 9, window=3)
        reading = asyncio.ensure_future(anext(stream))
        await until(lambda: session._sender.history.in_flight > 1)
        with pytest.raises(RuntimeError, match="already running"):
            await stream.aclose()
        server.gate.set()
        assert (await reading).tolist() == X
        await stream.aclose()
        assert (await session.step(X)).tolist() == [session.position.step] * 2

    async def test_it_takes_exceptions(self, session: AsyncSession) -> None:
        stream = session.stream([X] * 20)
        await anext(stream)
        with pytest.raises(KeyError):
            await stream.athrow(KeyError("x"))
        assert (await session.step(X)).tolist() == [session.position.step] * 2

    async def test_it_may_be_collected_in_another_thread(self, session: AsyncSession) -> None:
        stream = session.stream([X] * 20)
        await anext(stream)
        held = [stream]
        del stream
        thread = threading.Thread(target=held.clear)
        thread.start()
        thread.join()
        await asyncio.sleep(0)  # the event loop takes notice
        assert (await session.step(X)).tolist() == [session.position.step] * 2

    async def test_its_late_steps_are_in_the_order_of_the_steps(
        self, session: AsyncSession, server: CountingServer
    ) -> None:
        server.gate.clear()
        reading = asyncio.ensure_future(anext(session.stream([X] * 9, window=3)))
        await until(lambda: session._sender.history.in_flight > 1)
        reading.cancel()
        await asyncio.wait([reading])
        steps = [late.position.step for late in session.unsettled]
        assert len(steps) > 1
        assert steps == sorted(steps)
        server.gate.set()
        assert [late.position.step for late in await session.settle()] == steps
