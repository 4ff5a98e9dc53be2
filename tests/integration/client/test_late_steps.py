"""Steps whose callers stopped waiting: each outcome, and when it is known."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from cellkeeper import AsyncClient, Closed, DeadlineExceeded, InvalidArgument, ModelChanged, StepConflict
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from .conftest import QUICK, until
from .counting_server import CountingServer
from .counting_wire import Refused
from .late_steps import numbers, sample, timed_out
from .ones import ONE


async def test_a_late_answer_counts(client: AsyncClient, server: CountingServer) -> None:
    session = await client.open("a")
    late = await timed_out(session, server, ONE)
    server.gate.set()
    assert (await session.step(ONE)).tolist() == [2, 2]  # the same values, but another step
    assert late.applied
    assert late.position.step == 1
    assert len(server.seen) == 2  # its answer arrived late, and it was not sent again


async def test_a_lost_answer_is_asked_for_again_as_it_was(client: AsyncClient, server: CountingServer) -> None:
    session = await client.open("a")
    late = await timed_out(session, server, sample(1))
    server.lose_replies = 1
    server.gate.set()
    assert (await session.step(sample(2))).tolist() == [6, 0]
    assert late.applied
    assert server.seen[0] == server.seen[1]
    assert server.applied_steps == 2


async def test_what_never_arrived_is_sent_again(client: AsyncClient, server: CountingServer) -> None:
    session = await client.open("a")
    late = await timed_out(session, server, sample(1))
    server.refusals = [Refused("STORE_UNAVAILABLE"), Refused("COMMIT_CONFLICT")]
    server.gate.set()
    assert await session.settle() == (late,)
    assert (late.applied, session.position) == (True, late.position)


async def test_nothing_is_sent_again_while_nobody_waits(client: AsyncClient, server: CountingServer) -> None:
    session, other = await client.open("a"), await client.open("b")
    late = await timed_out(session, server, sample(1))
    server.refusals = [Refused("STORE_UNAVAILABLE", delay_ms=1)]
    server.gate.set()
    await until(lambda: not server.refusals)
    for _ in range(20):
        await other.step(ONE)
    assert [name for name, _, _ in server.seen].count("a") == 1
    assert late.applied is None
    assert await session.settle() == (late,)


async def test_a_late_step_that_is_refused_does_not_count(client: AsyncClient, server: CountingServer) -> None:
    session = await client.open("a")
    late = await timed_out(session, server, [1.0, 1e6])
    server.gate.set()
    reply = await session.step_reply(ONE)
    assert reply.output.tolist() == [1, 1]
    assert reply.late_steps == (late,)
    assert late.applied is False
    assert isinstance(late.error, InvalidArgument)


async def test_a_late_step_in_whose_place_others_stepped(client: AsyncClient, server: CountingServer) -> None:
    session, other = await client.open("a"), await client.open("a")
    late = await timed_out(session, server, sample(1))
    server.refusals = [Refused("STORE_UNAVAILABLE")]
    server.gate.set()
    await until(lambda: not server.refusals)
    await other.step(sample(5))
    with pytest.raises(StepConflict) as caught:
        await session.step(sample(2))
    assert caught.value.late_step is None
    assert late.applied is False
    with pytest.raises(StepConflict):
        await session.step(sample(3))
    assert server.records["a"].position == other.position


async def test_what_cannot_be_settled_is_told_to_every_step(client: AsyncClient, server: CountingServer) -> None:
    session = await client.open("a")
    server.lose_replies = 1
    server.gate.clear()
    waiting = asyncio.ensure_future(session.step(sample(1)))
    await until(lambda: server.frames == 1)
    server.refusals = []
    server.gate.set()
    await until(lambda: server.applied_steps == 1)
    server.refusals = [Refused("MODEL_CHANGED") for _ in range(3)]
    with pytest.raises(ModelChanged) as caught:
        await waiting
    late = caught.value.late_step
    assert late is not None  # the first attempt was applied, which the refused one cannot know
    for call in (session.step(sample(2)), session.state()):
        with pytest.raises(ModelChanged):
            await call
    assert session.unsettled == (late,)
    assert isinstance(late.error, ModelChanged)
    assert (await session.step(sample(3))).tolist() == [10, 0]
    assert late.applied


async def test_a_late_step_that_a_later_answer_proves(client: AsyncClient, server: CountingServer) -> None:
    """It counts, though its own answer is a refusal."""
    session = await client.open("a")
    answered = server.answer

    def unknown_once(frame: Any) -> Any:
        server.answer = answered  # type: ignore[method-assign]
        refused = pb.ItemError(item=0, error=Refused("STORE_UNAVAILABLE").wire())
        answered(frame)
        return pb.StepFrameReply(frame_id=frame.frame_id, errors=[refused], last=True)

    server.answer = unknown_once  # type: ignore[method-assign]
    server.gate.clear()
    steps = []
    for number in (1, 2):
        steps.append(asyncio.ensure_future(session.step(sample(number))))
        await until(lambda number=number: client.counters.frames_sent == number)  # type: ignore[misc]
    steps[0].cancel()
    await asyncio.wait(steps[:1])
    (late,) = session.unsettled
    server.gate.set()
    assert (await steps[1]).tolist() == [6, 0]
    server.refusals = [Refused("MODEL_CHANGED")]
    assert await session.settle() == (late,)
    assert (late.applied, session.unsettled) == (True, ())
    assert isinstance(late.error, ModelChanged)
    assert (await session.step(sample(3))).tolist() == [14, 0]


async def test_the_steps_behind_a_late_one_go_on(client: AsyncClient, server: CountingServer) -> None:
    session = await client.open("a")
    server.gate.clear()
    steps = [asyncio.ensure_future(session.step(sample(number))) for number in range(3)]
    await until(lambda: server.frames >= 1)
    steps[0].cancel()
    await asyncio.wait([steps[0]])
    assert len(session.unsettled) == 1
    server.gate.set()
    assert [(await step).tolist() for step in steps[1:]] == [[3, 0], [7, 0]]
    assert not session.unsettled


async def test_a_caller_cancelled_with_its_answer_there(client: AsyncClient, server: CountingServer) -> None:
    session = await client.open("a")
    step = asyncio.ensure_future(session.step(ONE))
    await until(lambda: session.position.step == 1)  # it was answered, but the task has not run yet
    step.cancel()
    await asyncio.wait([step])
    if step.cancelled():
        (late,) = await session.settle()
        assert (late.applied, late.position.step) == (True, 1)
    assert (await session.step(ONE)).tolist() == [2, 2]


async def test_closing_says_that_a_step_may_count(server: CountingServer) -> None:
    async with AsyncClient(f"127.0.0.1:{server.port}", backoff=QUICK) as client:
        session = await client.open("a")
        server.gate.clear()
        waiting = asyncio.ensure_future(session.step(ONE))
        await until(lambda: server.frames == 1)
        await session.close()
        with pytest.raises(Closed) as caught:
            await waiting
        assert caught.value.late_step is not None
        assert caught.value.late_step.applied is None
        with pytest.raises(Closed) as caught:
            await session.step(ONE)
        assert caught.value.late_step is None


async def test_a_loop_in_which_every_step_is_late(client: AsyncClient, server: CountingServer) -> None:
    session = await client.open("a")
    for number in range(6):
        late = await timed_out(session, server, sample(number))
        server.gate.set()
        assert (await session.settle())[-1] is late
    assert numbers(float((await session.step(sample(6)))[0])) == set(range(7))


async def test_settling_keeps_its_deadline(client: AsyncClient, server: CountingServer) -> None:
    session = await client.open("a")
    late = await timed_out(session, server, ONE)
    with pytest.raises(DeadlineExceeded, match="earlier step"):
        await session.step(ONE, timeout=0.03)
    with pytest.raises(DeadlineExceeded):
        await session.settle(timeout=0.03)
    assert session.unsettled == (late,)
    server.gate.set()
    assert await session.settle() == (late,)
    assert not await session.settle()


async def test_leaving_a_stream_early_tells_what_counts(client: AsyncClient, server: CountingServer) -> None:
    session = await client.open("a")

    async def source() -> AsyncIterator[list[float]]:
        for number in range(12):
            yield sample(number)

    seen = 0
    stream = session.stream(source(), window=6)
    async for _ in stream:
        seen += 1
        if seen == 2:
            break
    await stream.aclose()
    late = await session.settle()
    total = float((await session.state())["h"][0][0])
    assert numbers(total) == set(range(session.position.step))
    assert all(step.applied for step in late)
    assert server.records["a"].position == session.position
