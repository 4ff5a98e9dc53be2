"""Fail-over to other endpoints, and deadlines that are kept whatever a server does."""

from __future__ import annotations

import asyncio
import socket

import pytest
from cellkeeper import AsyncClient, Closed, DeadlineExceeded, QueueFull, Unavailable
from cellkeeper._transport.endpoints import rendezvous

from .conftest import QUICK, until
from .counting_server import CountingServer
from .counting_wire import Refused
from .ones import ONE, counted, take


async def test_fail_over_and_back(server: CountingServer) -> None:
    servers = [server, CountingServer(server.records)]
    targets = [f"127.0.0.1:{server.port}", await servers[1].start()]
    async with AsyncClient(targets, timeout=20, backoff=QUICK) as client:
        sessions = [await client.open(f"s{index}") for index in range(20)]
        homes = [targets.index(rendezvous(session.id, targets)[0]) for session in sessions]
        assert set(homes) == {0, 1}
        await asyncio.gather(*(session.step(ONE) for session in sessions))
        assert [server.applied_steps for server in servers] == [homes.count(0), homes.count(1)]
        await servers[0].stop()
        results = await asyncio.gather(*(take(session, [ONE] * 5) for session in sessions))
        assert results == [counted(2, 6)] * 20
        back = CountingServer(server.records)
        await back.start(server.port)

        home = sessions[homes.index(0)]
        before = home.position.step

        async def returned() -> None:
            while back.applied_steps == 0:
                await home.step(ONE)

        await asyncio.wait_for(returned(), 15)
        assert home.position.step > before
        await back.stop()
        await servers[1].stop()
    assert all(server.records[session.id].position == session.position for session in sessions)


async def test_removing_an_endpoint_moves_only_its_sessions() -> None:
    targets = [f"host{index}:1" for index in range(5)]
    names = [f"s{index}" for index in range(500)]
    before = {name: rendezvous(name, targets)[0] for name in names}
    after = {name: rendezvous(name, targets[1:])[0] for name in names}
    moved = [name for name in names if before[name] != after[name]]
    assert moved == [name for name in names if before[name] == targets[0]]
    assert 50 < len(moved) < 150


async def test_a_deadline_is_kept_and_the_step_counts_once(client: AsyncClient, server: CountingServer) -> None:
    session = await client.open("a")
    server.gate.clear()
    with pytest.raises(DeadlineExceeded, match=r"within 0\.05 s"):
        await session.step(ONE, timeout=0.05)
    await until(lambda: server.frames == 1)
    another = asyncio.ensure_future(session.step(ONE))  # the same values, but another step
    server.gate.set()
    assert (await another).tolist() == [2, 2]
    assert server.applied_steps == 2


async def test_every_session_keeps_its_own_deadline(client: AsyncClient, server: CountingServer) -> None:
    slow, quick, again = [await client.open(name) for name in ("slow", "quick", "again")]
    server.gate.clear()
    waiting = asyncio.ensure_future(slow.step(ONE))
    for session in (quick, again, quick):  # each time only the long timer is left
        with pytest.raises(DeadlineExceeded):
            await session.step(ONE, timeout=0.03)
    behind = [asyncio.ensure_future(quick.step(ONE, timeout=seconds)) for seconds in (0.06, 0.03, 15)]
    results = await asyncio.gather(*behind, return_exceptions=True)
    assert [type(result) for result in results] == [DeadlineExceeded] * 3  # the last two were built on the first
    assert not waiting.done()
    server.gate.set()
    assert (await waiting).tolist() == [1, 1]
    total = (await again.step(ONE)).tolist()
    arrived = [session for session, *_ in server.seen].count("again")
    assert total == [arrived, arrived]  # the late step counts if it was sent before its deadline


async def test_no_server_at_all(nobody: str) -> None:
    async with AsyncClient(nobody, backoff=QUICK) as client:
        with pytest.raises(DeadlineExceeded) as caught:
            await client.open("a", timeout=0.3)
        assert isinstance(caught.value.__cause__, Unavailable)


async def test_the_deadline_names_what_was_in_the_way(client: AsyncClient, server: CountingServer) -> None:
    session = await client.open("a")
    server.refusals = [Refused("QUEUE_FULL", delay_ms=5) for _ in range(1000)]
    with pytest.raises(DeadlineExceeded, match="QUEUE_FULL") as caught:
        await session.step(ONE, timeout=0.1)
    assert isinstance(caught.value.__cause__, QueueFull)


async def test_a_silent_server_is_given_up(server: CountingServer) -> None:
    async with AsyncClient(f"127.0.0.1:{server.port}", attempt_timeout=0.1, backoff=QUICK) as client:
        session = await client.open("a")
        server.gate.clear()
        waiting = asyncio.ensure_future(session.step(ONE))
        await until(lambda: server.frames >= 2)
        server.gate.set()
        assert (await waiting).tolist() == [1, 1]
    assert server.applied_steps == 1


async def test_an_endpoint_that_only_accepts_is_given_up(server: CountingServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # connections are accepted, but nothing reads from them
        target = f"127.0.0.1:{silent.getsockname()[1]}"
        other = f"127.0.0.1:{server.port}"
        name = next(f"s{i}" for i in range(100) if rendezvous(f"s{i}", [target, other])[0] == target)
        async with AsyncClient([target, other], attempt_timeout=0.2, timeout=3.0, backoff=QUICK) as client:
            session = await client.open(name)
            for step in range(1, 4):
                assert (await session.step(ONE)).tolist() == [step, step]


async def test_a_cancelled_step_that_was_sent_counts_once(client: AsyncClient, server: CountingServer) -> None:
    session = await client.open("a")
    server.gate.clear()
    waiting = asyncio.ensure_future(session.step(ONE))
    await until(lambda: server.frames == 1)
    waiting.cancel()
    assert isinstance((await asyncio.gather(waiting, return_exceptions=True))[0], asyncio.CancelledError)
    server.gate.set()
    assert (await session.step(ONE)).tolist() == [2, 2]
    assert server.applied_steps == 2


async def test_closing_ends_what_waits(server: CountingServer) -> None:
    client = AsyncClient(f"127.0.0.1:{server.port}")
    session = await client.open("a")
    server.gate.clear()
    waiting = asyncio.ensure_future(session.step(ONE))
    await until(lambda: server.frames == 1)
    await client.close()
    with pytest.raises(Closed):
        await waiting
    with pytest.raises(Closed):
        await session.step(ONE)
    with pytest.raises(Closed):
        await client.open("b")
