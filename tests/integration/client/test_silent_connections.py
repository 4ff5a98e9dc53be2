"""A connection that dies without a sign: a firewall has forgotten it, or its host has lost power."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc.aio
import pytest
from cellkeeper import AsyncClient
from cellkeeper._transport.channel import Channel

from testing.held_port import HeldPort

from .conftest import QUICK, until
from .counting_server import CountingServer

ONE = [1.0, 1.0]


class Relay:
    """Forwards connections to a server. Those that `forget` finds stay open, and nothing more comes through them."""

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._tasks: list[asyncio.Task[None]] = []
        self._writers: list[asyncio.StreamWriter] = []
        self.accepted = 0

    async def start(self) -> str:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return f"127.0.0.1:{self._listener.sockets[0].getsockname()[1]}"

    def forget(self) -> None:
        for task in self._tasks:
            task.cancel()

    def forget_replies(self) -> None:
        for task in self._tasks[1::2]:
            task.cancel()

    async def stop(self) -> None:
        self._listener.close()
        self.forget()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        there, onwards = await asyncio.open_connection("127.0.0.1", self._server_port)
        self._writers += writer, onwards
        for source, sink in ((reader, onwards), (there, writer)):
            self._tasks.append(asyncio.get_running_loop().create_task(self._pump(source, sink)))

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while some := await source.read(65536):
            sink.write(some)
            await sink.drain()
        sink.close()


@pytest.fixture
async def relay(server: CountingServer) -> AsyncIterator[Relay]:
    relay = Relay(server.port)
    yield relay
    await relay.stop()


async def reads(client: AsyncClient) -> None:
    assert [model.name for model in await client.models()]


async def waits(client: AsyncClient) -> None:
    await client.wait_ready(timeout=20)


async def steps(client: AsyncClient) -> None:
    assert (await (await client.session("a")).step(ONE)).tolist() == [2.0, 2.0]


@pytest.mark.parametrize("use", [steps, reads, waits])
async def test_another_connection_takes_its_place(relay: Relay, use: Callable[[AsyncClient], Awaitable[None]]) -> None:
    async with AsyncClient(await relay.start(), timeout=20, attempt_timeout=0.5, backoff=QUICK) as client:
        session = await client.session("a")
        assert (await session.step(ONE)).tolist() == [1.0, 1.0]
        assert relay.accepted == 1
        relay.forget()
        await use(client)
        assert relay.accepted == 2
        assert (await session.step(ONE))[0] in (2.0, 3.0)
        assert relay.accepted == 2


async def test_steps_in_flight_take_effect_once(relay: Relay, server: CountingServer) -> None:
    async with AsyncClient(await relay.start(), timeout=20, attempt_timeout=0.5, backoff=QUICK) as client:
        session = await client.session("a")
        await session.step(ONE)
        server.gate.clear()
        stepping = asyncio.ensure_future(session.step(ONE))
        before = server.frames
        await until(lambda: server.frames > before)
        relay.forget()
        server.gate.set()  # the step is applied, but its reply does not arrive
        assert (await stepping).tolist() == [2.0, 2.0]
        assert (await session.step(ONE)).tolist() == [3.0, 3.0]
        assert relay.accepted == 2


async def test_a_slow_server_keeps_its_connection(relay: Relay, server: CountingServer) -> None:
    """While anything is heard, an attempt without an answer says nothing about the connection."""
    async with AsyncClient(await relay.start(), timeout=20, attempt_timeout=0.5, backoff=QUICK) as client:
        session = await client.session("a")
        await session.step(ONE)
        server.gate.clear()
        stepping = asyncio.ensure_future(session.step(ONE))
        while client.counters.stream_reconnects == 0:  # an attempt has ended without an answer
            await client.models()
        server.gate.set()
        assert (await stepping).tolist() == [2.0, 2.0]
        assert relay.accepted == 1


async def test_who_waits_for_a_connection_gets_the_one_that_takes_its_place() -> None:
    """A call notices the dead connection while the stream waits to be opened again."""
    with HeldPort() as port:
        target = f"127.0.0.1:{port}"
        channel, server = Channel(target, None, (), 0.05), grpc.aio.server()
        waiting = asyncio.ensure_future(channel.ready())
        await asyncio.sleep(0)  # it begins to wait
        channel.unanswered(channel.stub, asyncio.get_running_loop().time())
        await asyncio.gather(*channel._old)  # closed by now
        server.add_insecure_port(target)
        await server.start()
        await asyncio.wait_for(waiting, 10)
        await channel.close()
        await server.stop(None)


async def test_a_call_is_made_again_whose_channel_is_closed_before_its_deadline(
    relay: Relay, server: CountingServer
) -> None:
    """It is closed later, unless the event loop was late for both. gRPC then ends the call as if it was cancelled."""
    async with AsyncClient(await relay.start(), timeout=20, attempt_timeout=10, backoff=QUICK) as client:
        await client.models()
        channel = client._connected().endpoints.first("a").channel
        relay.forget_replies()
        opening = asyncio.ensure_future(client.session("a"))
        await until(lambda: bool(server.request_ids))
        dead = channel._channel
        channel.unanswered(channel.stub, asyncio.get_running_loop().time())
        await dead.close(None)
        assert (await opening).created, "by its first, unanswered attempt"
        assert len(server.request_ids) == 2


async def test_the_channel_that_was_replaced_is_closed_after_its_calls_deadlines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    channel, graces = Channel("127.0.0.1:1", None, (), 10.0), list[float]()

    async def close(grace: float) -> None:
        graces.append(grace)

    monkeypatch.setattr(channel._channel, "close", close)
    channel.unanswered(channel.stub, asyncio.get_running_loop().time())
    await asyncio.gather(*channel._old)
    await channel.close()
    assert graces[0] > 10.0
