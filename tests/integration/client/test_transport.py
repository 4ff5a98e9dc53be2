"""The asyncio client on a real gRPC server: frames, retries, losses, fail-over."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from cellkeeper import (
    AsyncClient,
    AsyncSession,
    Client,
    Closed,
    DeadlineExceeded,
    GenerationChanged,
    GroupError,
    HistoryChanged,
    HistoryLost,
    InvalidArgument,
    QueueFull,
    ServerError,
    SessionExists,
    SessionNotFound,
    StepCompacted,
    StepConflict,
    StepGap,
    Unavailable,
    first_position,
)
from cellkeeper._transport.endpoints import rendezvous
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from .conftest import QUICK, until
from .counting_server import CountingServer, Record, Refused, fresh

ONE = [1.0, 1.0]


async def take(session: AsyncSession, samples: object, **options: int) -> list[list[float]]:
    return [y.tolist() async for y in session.stream(samples, **options)]  # type: ignore[arg-type]


def counted(first: int, last: int) -> list[list[float]]:
    """Returns the answers to steps of value 1."""
    return [[float(step), float(step)] for step in range(first, last + 1)]


# ---------------------------------------------------------------------------------------------- shapes


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


# ---------------------------------------------------------------------------------------------- frames


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


# ---------------------------------------------------------------------------------------------- losses


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


# ---------------------------------------------------------------------------------------------- restarts


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


# ---------------------------------------------------------------------------------------------- endpoints


async def test_fail_over_and_back() -> None:
    records: dict[str, Record] = {}
    servers = [CountingServer(records), CountingServer(records)]
    targets = [await server.start() for server in servers]
    async with AsyncClient(targets, timeout=20, backoff=QUICK) as client:
        sessions = [await client.open(f"s{index}") for index in range(20)]
        homes = [targets.index(rendezvous(session.id, targets)[0]) for session in sessions]
        assert set(homes) == {0, 1}
        await asyncio.gather(*(session.step(ONE) for session in sessions))
        assert [server.applied_steps for server in servers] == [homes.count(0), homes.count(1)]
        await servers[0].stop()
        results = await asyncio.gather(*(take(session, [ONE] * 5) for session in sessions))
        assert results == [counted(2, 6)] * 20
        back = CountingServer(records)
        await back.start(servers[0].port)

        home = sessions[homes.index(0)]
        before = home.position.step

        async def returned() -> None:
            while back.applied_steps == 0:
                await home.step(ONE)

        await asyncio.wait_for(returned(), 15)
        assert home.position.step > before
        await back.stop()
        await servers[1].stop()
    assert all(records[session.id].position == session.position for session in sessions)


async def test_removing_an_endpoint_moves_only_its_sessions() -> None:
    targets = [f"host{index}:1" for index in range(5)]
    names = [f"s{index}" for index in range(500)]
    before = {name: rendezvous(name, targets)[0] for name in names}
    after = {name: rendezvous(name, targets[1:])[0] for name in names}
    moved = [name for name in names if before[name] != after[name]]
    assert moved == [name for name in names if before[name] == targets[0]]
    assert 50 < len(moved) < 150


# ---------------------------------------------------------------------------------------------- time


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
