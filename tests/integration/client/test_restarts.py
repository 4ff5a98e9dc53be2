"""The asyncio client on a server that restarts with its data, with a part of it, or with other data."""

from __future__ import annotations

import pytest
from cellkeeper import AsyncClient, GenerationChanged, HistoryChanged, HistoryLost, SessionNotFound, StepGap

from .conftest import QUICK
from .counting_record import Record, fresh
from .counting_server import CountingServer
from .ones import ONE, counted, take


async def restarted(server: CountingServer, records: dict[str, Record]) -> CountingServer:
    """Returns another server on the same port."""
    port = server.port
    await server.stop()
    again = CountingServer(records)
    await again.start(port)
    return again


async def test_a_restart_with_its_data_is_not_noticed(client: AsyncClient, server: CountingServer) -> None:
    session = await client.open("a")
    await take(session, [ONE] * 5)
    again = await restarted(server, server.records)
    assert await take(session, [ONE] * 5) == counted(6, 10)
    assert again.applied_steps == 5
    await again.stop()


async def test_a_restart_in_the_middle_of_a_stream(client: AsyncClient, server: CountingServer) -> None:
    session, got, servers = await client.open("a"), [], [server]
    async for y in session.stream([ONE] * 60):
        got.append(y.tolist())
        if len(got) == 20:
            servers.append(await restarted(server, server.records))
    assert got == counted(1, 60)
    assert sum(each.applied_steps for each in servers) == 60
    await servers[1].stop()


async def test_a_lost_tail_is_replayed(client: AsyncClient, server: CountingServer) -> None:
    session = await client.open("a")
    await take(session, [ONE] * 30)
    server.records["a"].cut(12)
    again = await restarted(server, server.records)
    assert await take(session, [ONE] * 10) == counted(31, 40)
    assert client.counters.replayed_steps == 12
    assert again.applied_steps == 22
    again.records["a"].cut(3)
    assert (await session.peek(ONE)).tolist() == [41, 41]
    assert client.counters.replayed_steps == 15
    await again.stop()


async def test_a_tail_longer_than_the_buffer_is_lost(server: CountingServer) -> None:
    async with AsyncClient(f"127.0.0.1:{server.port}", window_steps=5, buffer_steps=5, backoff=QUICK) as client:
        session = await client.open("a")
        await take(session, [ONE] * 30)
        server.records["a"].cut(12)
        with pytest.raises(HistoryLost) as caught:
            await session.step(ONE)
        assert caught.value.position is not None
        assert caught.value.position.step == 18
        assert server.applied_steps == 30


async def test_a_fork_sends_a_lost_tail_again_first(client: AsyncClient, server: CountingServer) -> None:
    session = await client.open("a")
    await take(session, [ONE] * 10)
    early = session.position
    await take(session, [ONE] * 10)
    server.records["a"].cut(12)
    branch = await session.fork("b")
    assert (await branch.step(ONE)).tolist() == [21, 21]
    assert client.counters.replayed_steps == 12
    server.records["a"].cut(15)
    branch = await session.fork("c", position=early)
    assert (await branch.step(ONE)).tolist() == [11, 11]
    assert client.counters.replayed_steps == 27
    with pytest.raises(StepGap):
        await session.fork("d", position=early._replace(step=40))
    assert (await session.step(ONE)).tolist() == [21, 21]


async def test_a_fork_whose_source_is_lost_says_so(server: CountingServer) -> None:
    async with AsyncClient(f"127.0.0.1:{server.port}", window_steps=5, buffer_steps=5, backoff=QUICK) as client:
        session = await client.open("a")
        await take(session, [ONE] * 30)
        server.records["a"].cut(12)
        with pytest.raises(HistoryLost):
            await session.fork("b")
        assert "b" not in server.records


async def test_a_tail_that_others_overwrote_is_not_replayed(client: AsyncClient, server: CountingServer) -> None:
    session = await client.open("a")
    await take(session, [ONE] * 10)
    server.records["a"].cut(4)
    other = await client.open("a")
    await other.step([1.0, 9.0])
    with pytest.raises(HistoryChanged):
        await session.step(ONE)
    assert server.records["a"].position == other.position


async def test_another_generation_is_never_hidden(client: AsyncClient, server: CountingServer) -> None:
    session = await client.open("a")
    await take(session, [ONE] * 3)
    server.records["a"] = fresh(bytes(16))
    with pytest.raises(GenerationChanged):
        await session.step(ONE)
    with pytest.raises(GenerationChanged):
        await session.reset()
    del server.records["a"]
    with pytest.raises(SessionNotFound):
        await session.step(ONE)
    assert "a" not in server.records
    assert (await (await client.open("a")).step(ONE)).tolist() == [1, 1]
