"""The asyncio client on a real gRPC server: what it sends, and what shares a frame."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest
from cellkeeper import (
    AsyncClient,
    AsyncSession,
    Client,
    Closed,
    HistoryChanged,
    InvalidArgument,
    SessionExists,
    SessionNotFound,
    StepCompacted,
    StepConflict,
    StepGap,
    first_position,
)

from .conftest import QUICK, until
from .counting_server import CountingServer
from .ones import ONE, counted, take


async def test_shapes_follow_the_input(client: AsyncClient) -> None:
    session = await client.open("a")
    assert session.created
    assert (await session.step([1.0, 2.0])).tolist() == [1, 2]
    assert (await session.step([ONE, ONE])).tolist() == [[2, 3], [3, 4]]
    assert session.position.step == 3
    reply = await session.step_reply(ONE, outputs=("prediction", "hidden", "state"))
    assert {name: value.shape for name, value in reply.outputs.items()} == {
        "prediction": (2,),
        "hidden": (2,),
        "state.h": (1, 2),
    }
    assert reply.state["h"].tolist() == [[4, 5]]
    assert reply.position == session.position
    assert session.last_reply is reply
    reply.output[0] = 0  # the array is the caller's own
    assert all(value.base is None for value in reply.outputs.values())  # keeping an output does not keep its frame


async def test_wrong_inputs_are_refused_here(client: AsyncClient, server: CountingServer) -> None:
    session = await client.open("a")
    wrong: list[object] = [[1.0], 3.0, [[[1.0, 2.0]]], ["a", "b"], [np.nan, 0.0], [np.inf, 0.0], np.zeros((0, 2)), None]
    wrong += [np.zeros((33, 2)), [1e300, 0.0]]
    for x in wrong:
        with pytest.raises(InvalidArgument, match=r"inputs: got .*, expected"):
            await session.step(x)  # type: ignore[arg-type]
    assert server.frames == 0
    with pytest.raises(InvalidArgument, match="session: got 0 bytes"):
        await client.open("")


async def test_session_and_open_are_two_names_for_one_call(client: AsyncClient) -> None:
    assert (await client.session("a", ttl=60)).created
    again = await client.open("a")
    assert (again.created, (await again.info()).ttl_seconds) == (False, 60)
    assert (await client.open("b")).created
    assert not (await client.session("b")).created


async def test_opening_continues_and_expect_insists(client: AsyncClient, server: CountingServer) -> None:
    first = await client.open("a", ttl=60)
    assert server.records["a"].ttl_ms == 60_000
    await first.step(ONE)
    again = await client.open("a", expect=first.position)
    assert not again.created
    assert (await again.step(ONE)).tolist() == [2, 2]
    with pytest.raises(SessionNotFound):
        await client.open("b", expect=first.position)
    assert "b" not in server.records
    with pytest.raises(HistoryChanged):
        await client.open("a", expect=first.position._replace(head=bytes(8)))


async def test_expecting_what_the_server_cannot_tell(client: AsyncClient, server: CountingServer) -> None:
    session = await client.open("a")
    await take(session, [ONE] * 10)
    early, late = first_position(session.generation), session.position
    server.records["a"].cut(4)
    with pytest.raises(StepGap) as caught:
        await client.open("a", expect=late)
    assert caught.value.position is not None
    assert caught.value.position.step == 6
    server.records["a"].compact(3)
    with pytest.raises(StepCompacted):
        await client.open("a", expect=early)


async def test_a_buffer_smaller_than_the_window_is_refused() -> None:
    for kind in (AsyncClient, Client):
        with pytest.raises(InvalidArgument, match="buffer_steps: got 7, expected at least window_steps, 8") as caught:
            kind("localhost:1", window_steps=8, buffer_steps=7)
        assert caught.value.field == "buffer_steps"


async def test_generations(client: AsyncClient, server: CountingServer) -> None:
    session = await client.open("a")
    await take(session, [ONE] * 3)
    old = session.generation
    branch = await session.fork("a/what-if")
    assert (await branch.step(ONE)).tolist() == [4, 4]
    with pytest.raises(SessionExists):
        await session.fork("a/what-if")
    peeked = await session.peek([1.0, 5.0])
    assert peeked.tolist() == [4, 8]
    assert (await session.state())["h"].tolist() == [[3, 3]]
    await session.set_state({"h": [[7.0, 70.0]]}, step=7)
    assert session.position.step == 7
    assert session.generation != old
    assert (await session.step(ONE)).tolist() == [8, 71]
    await session.reset()
    assert session.position.step == 0
    assert [info.session async for info in client.sessions("a")] == ["a", "a/what-if"]
    assert (await session.info()).position == session.position
    assert await session.delete()
    assert not await session.delete()
    with pytest.raises(SessionNotFound):
        await session.step(ONE)
    assert [model.name for model in await client.models()] == ["count"]


async def test_request_ids_stay_the_same_over_retries(client: AsyncClient, server: CountingServer) -> None:
    server.lose_calls = 2
    session = await client.open("a")
    assert session.created  # by its first, unanswered attempt
    assert len(server.request_ids) == 3
    server.lose_calls = 1
    await session.reset()
    server.lose_calls = 1
    await session.fork("b")
    opened, reset, forked = server.request_ids[:3], server.request_ids[3:5], server.request_ids[5:]
    assert [len(set(ids)) for ids in (opened, reset, forked)] == [1, 1, 1]
    assert len({*opened, *reset, *forked}) == 3
    assert all(len(request_id) == 16 for request_id in server.request_ids)


async def test_concurrent_steps_share_frames(client: AsyncClient, server: CountingServer) -> None:
    sessions = [await client.open(f"s{index}") for index in range(64)]

    async def walk(session: AsyncSession) -> list[float]:
        for _ in range(20):
            last = await session.step(ONE)
        return [float(value) for value in last]

    assert await asyncio.gather(*map(walk, sessions)) == [[20.0, 20.0]] * 64
    assert client.counters.steps_sent == server.applied_steps == 64 * 20
    assert client.counters.frames_sent == server.frames <= 64 * 20 / 8
    assert client.counters.retries == 0


async def test_a_frame_never_passes_its_limit(server: CountingServer) -> None:
    async with AsyncClient(f"127.0.0.1:{server.port}", max_frame_items=10, backoff=QUICK) as client:
        sessions = [await client.open(f"s{index}") for index in range(64)]
        await asyncio.gather(*(session.step(ONE) for session in sessions))
    assert max(server.frame_sizes) == 10
    assert sum(server.frame_sizes) == 64


async def test_few_frames_are_in_flight_but_a_slow_one_holds_nobody_up(
    client: AsyncClient, server: CountingServer
) -> None:
    sessions = [await client.open(f"s{index}") for index in range(40)]
    server.gate.clear()
    waiting = []
    for session in sessions:
        waiting.append(asyncio.ensure_future(session.step(ONE)))
        for _ in range(3):
            await asyncio.sleep(0)
    assert client.counters.frames_sent <= 10  # 40 without the limit
    before = client.counters.frames_sent
    waiting.append(asyncio.ensure_future((await client.open("late")).step(ONE)))
    await until(lambda: client.counters.frames_sent > before)
    server.gate.set()
    await asyncio.gather(*waiting)


async def test_two_objects_of_one_session_never_meet_in_a_frame(client: AsyncClient, server: CountingServer) -> None:
    one, two = await client.open("a"), await client.open("a")
    results = await asyncio.gather(one.step(ONE), two.step([1.0, 2.0]), return_exceptions=True)
    assert isinstance(results[1], StepConflict)
    assert server.frame_sizes == [1, 1]


async def test_frames_carry_the_time_that_is_left(client: AsyncClient, server: CountingServer) -> None:
    session = await client.open("a")
    await session.step(ONE, timeout=5)
    assert 4000 < server.timeouts_ms[0] <= 5000


async def test_a_pipelined_stream_keeps_order(client: AsyncClient, server: CountingServer) -> None:
    session = await client.open("a")
    assert await take(session, [ONE] * 200) == counted(1, 200)
    assert await take(session, [ONE] * 100, chunk_steps=32) == counted(201, 300)
    assert await take(session, [ONE] * 3, window=1) == counted(301, 303)
    assert session.position.step == server.applied_steps == 303


async def test_a_stream_reads_no_further_ahead_than_its_window(client: AsyncClient) -> None:
    session, read = await client.open("a"), 0

    def source() -> object:
        nonlocal read
        for _ in range(100):
            read += 1
            yield ONE

    seen = 0
    stream = session.stream(source(), window=8)  # type: ignore[arg-type]
    async for _ in stream:
        seen += 1
        assert read <= seen + 8
    assert seen == 100


async def test_a_live_source_gets_its_answers_at_once(client: AsyncClient) -> None:
    session = await client.open("a")
    answers: asyncio.Queue[list[float]] = asyncio.Queue()

    async def source() -> AsyncIterator[list[float]]:
        for step in range(3):
            yield ONE
            assert (await asyncio.wait_for(answers.get(), 10)) == [step + 1, step + 1]

    async for y in session.stream(source()):
        answers.put_nowait(y.tolist())
    assert session.position.step == 3


async def test_leaving_a_stream_takes_back_what_was_not_sent(client: AsyncClient, server: CountingServer) -> None:
    session = await client.open("a")
    stream = session.stream([ONE] * 60, window=50)
    async for _ in stream:
        break
    await stream.aclose()
    y = await session.step(ONE)
    assert y.tolist() == [server.applied_steps] * 2
    assert server.applied_steps < 50


async def test_leaving_a_stream_takes_back_what_is_beyond_the_window(server: CountingServer) -> None:
    async with AsyncClient(f"127.0.0.1:{server.port}", window_steps=4, backoff=QUICK) as client:
        session = await client.open("a")
        samples = [[float(10**i), 0.0] for i in range(6)]
        server.gate.clear()
        stream = session.stream(samples, window=6)
        first = asyncio.ensure_future(anext(stream))
        await until(lambda: server.frames >= 1)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        server.gate.set()
        total = float((await session.state())["h"][0][0])
        assert total == sum(10**i for i in range(server.applied_steps))  # no gap: the first so many


async def test_a_cancelled_step_takes_those_behind_it_along(server: CountingServer) -> None:
    async with AsyncClient(f"127.0.0.1:{server.port}", window_steps=1, backoff=QUICK) as client:
        session = await client.open("a")
        server.gate.clear()
        steps = [asyncio.ensure_future(session.step([float(10**i), 0.0])) for i in range(3)]
        await until(lambda: server.frames >= 1)
        steps[1].cancel()
        server.gate.set()
        assert (await steps[0]).tolist() == [1, 0]
        with pytest.raises(Closed):
            await steps[2]
        assert (await session.step([1000.0, 0.0])).tolist() == [1001, 0]
