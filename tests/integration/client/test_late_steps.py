"""Steps whose callers stopped waiting: a server that stalls, deadlines, cancellation, Ctrl-C, abandoned streams.

The model sums its inputs, and the n-th sample is 2**n in one feature, so the session's state shows which samples count.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from cellkeeper import (
    AsyncClient,
    AsyncSession,
    Client,
    Closed,
    DeadlineExceeded,
    GroupError,
    InvalidArgument,
    LateStep,
    ModelChanged,
    Session,
    StepConflict,
)
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from testing.bundles import counting_bundle
from testing.forked_server import ForkedServer

from .conftest import QUICK, ServerThread, until
from .counting_server import CountingServer
from .counting_wire import Refused

ONE = [1.0, 1.0]


def sample(number: int) -> list[float]:
    """Returns sample 0 to 20: different sets of samples have different sums."""
    return [float(1 << number), 0.0]


def numbers(total: float) -> set[int]:
    """Returns the samples that make up the sum."""
    return {number for number in range(24) if int(total) >> number & 1}


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkedServer]:
    bundle = counting_bundle(tmp_path_factory.mktemp("late") / "count", features=2)
    with ForkedServer([bundle], "memory:") as server:
        yield server


@contextmanager
def stalled(process: ForkedServer) -> Iterator[None]:
    """Stalls the whole server."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


# ---------------------------------------------------------------------------------------------- a server that stalls


@pytest.mark.parametrize("equal", [False, True], ids=["varying", "equal"])
def test_a_loop_goes_on_after_a_stall(process: ForkedServer, equal: bool) -> None:
    """As users write it: a sample every so often with a short timeout, and on to the next one."""
    with Client(process.target, backoff=QUICK) as client:
        session = client.session(f"loop-{equal}")
        counted: set[int] = set()
        late: list[tuple[int, LateStep]] = []

        def one(number: int, timeout: float) -> bool:
            try:
                session.step(ONE if equal else sample(number), timeout=timeout)
            except DeadlineExceeded as error:
                if error.late_step is not None:
                    late.append((number, error.late_step))
                return False
            counted.add(number)
            return True

        assert all(one(number, 20.0) for number in range(3))
        with stalled(process):
            assert not any(one(number, 0.05) for number in range(3, 7))
        assert [number for number, _ in late] == [3]  # the others were never sent
        assert session.unsettled == (late[0][1],)
        assert all(one(number, 20.0) for number in range(7, 12))
        assert not session.unsettled
        assert late[0][1].applied
        counted.add(3)
        total = float(session.state()["h"][0][0])
        assert (total == len(counted)) if equal else (numbers(total) == counted)
        assert session.position == session.info().position


async def test_wait_for_around_steps(process: ForkedServer) -> None:
    async with AsyncClient(process.target, backoff=QUICK) as client:
        session = await client.open("wait-for")
        await session.step(sample(0))
        with stalled(process):
            for number in (1, 2, 3):
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(session.step(sample(number)), 0.05)
            (late,) = session.unsettled
            assert (late.position.step, late.steps, late.applied) == (2, 1, None)
        reply = await session.step_reply(sample(4))
        assert reply.late_steps == (late,)
        assert late.applied
        assert late.outputs["prediction"].tolist() == [3, 0]  # what it would have returned
        assert numbers(float(reply.output[0])) == {0, 1, 4}
        assert (await session.step_reply(sample(5))).late_steps == ()


async def test_a_stream_that_times_out_tells_what_counts(process: ForkedServer) -> None:
    async with AsyncClient(process.target, backoff=QUICK) as client:
        session = await client.open("stream")
        await session.step(sample(0))
        with stalled(process):
            with pytest.raises(DeadlineExceeded) as caught:
                async for _ in session.stream([sample(number) for number in range(1, 9)], timeout=0.5, window=4):
                    pass
            assert caught.value.late_step is session.unsettled[0]
            assert [late.position.step for late in session.unsettled] == [2, 3, 4, 5]
        late = await session.settle()
        assert [step.applied for step in late] == [True] * 4
        assert session.position.step == 5
        assert numbers(float((await session.step(sample(9)))[0])) == {0, 1, 2, 3, 4, 9}


def test_reads_and_peeks_see_the_late_step(process: ForkedServer) -> None:
    with Client(process.target, backoff=QUICK) as client:
        session = client.session("reads")
        with stalled(process), pytest.raises(DeadlineExceeded):
            session.step(sample(1), timeout=0.05)
        assert session.peek(sample(3)).tolist() == [10, 0]
        assert session.unsettled == ()
        with stalled(process), pytest.raises(DeadlineExceeded):
            session.step(sample(2), timeout=0.05)
        assert session.state()["h"].tolist() == [[6, 0]]
        with stalled(process), pytest.raises(DeadlineExceeded):
            session.step(sample(4), timeout=0.05)
        assert session.reset().step == 0  # another generation: whether the step counted no longer matters
        assert session.unsettled == ()
        assert session.step(sample(1)).tolist() == [2, 0]


# ---------------------------------------------------------------------------------------------- Ctrl-C


@contextmanager
def ctrl_c(when: Callable[[], bool]) -> Iterator[None]:
    """Interrupts the main thread once `when` holds."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.is_set():
            if when():
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        ended.set()
        thread.join()


@pytest.mark.parametrize("way", ["step", "stream"])
def test_ctrl_c(threaded: ServerThread, way: str) -> None:
    async def gate(opened: bool) -> None:
        (threaded.server.gate.set if opened else threaded.server.gate.clear)()

    def consume(session: Session) -> None:
        if way == "step":
            session.step(sample(1))
        else:
            for _ in session.stream([sample(number) for number in range(1, 9)], window=1):
                pass

    with Client(threaded.target, backoff=QUICK) as client:
        session = client.session("a")
        session.step(sample(0))
        threaded.do(gate(False))
        sent = threaded.server.frames
        with ctrl_c(lambda: threaded.server.frames > sent):
            consume(session)
        (late,) = session.unsettled
        threaded.do(gate(True))
        assert session.step(sample(9)).tolist() == [1 + 2 + 512, 0]
        assert (late.applied, session.unsettled) == (True, ())
        assert session.last_reply is not None
        assert session.last_reply.late_steps == (late,)


# ---------------------------------------------------------------------------------------------- each outcome


async def timed_out(session: AsyncSession, server: CountingServer, x: list[float]) -> LateStep:
    """Sends x to a server that does not answer in time."""
    server.gate.clear()
    sent = server.frames
    with pytest.raises(DeadlineExceeded) as caught:
        await session.step(x, timeout=0.03)
    await until(lambda: server.frames > sent)
    assert caught.value.late_step is not None
    return caught.value.late_step


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


async def test_a_reset_does_not_wait_for_what_cannot_be_settled(client: AsyncClient, server: CountingServer) -> None:
    session = await client.open("a")
    late = await timed_out(session, server, ONE)
    server.refusals = [Refused("STORE_UNAVAILABLE"), Refused("MODEL_CHANGED")]
    server.gate.set()
    assert (await session.reset()).step == 0
    assert late.applied is None
    reply = await session.step_reply(ONE)
    assert reply.output.tolist() == [1, 1]
    assert reply.late_steps == (late,)  # told, though its outcome will never be known


@pytest.mark.parametrize(
    "restart",
    [lambda session: session.reset(), lambda session: session.set_state({"h": [[0.0, 0.0]]}, step=0)],
    ids=["reset", "set_state"],
)
async def test_what_a_reset_waits_for_is_told(
    client: AsyncClient, server: CountingServer, restart: Callable[[AsyncSession], Awaitable[object]]
) -> None:
    """Late steps that are settled before the new generation begins come with its first reply, before its own."""
    session = await client.open("a")
    await session.step(ONE)
    ended = await timed_out(session, server, ONE)
    server.gate.set()
    await restart(session)
    assert (ended.applied, ended.outputs["prediction"].tolist()) == (True, [2, 2])
    assert ended.position.generation != session.generation
    own = await timed_out(session, server, ONE)
    server.gate.set()
    reply = await session.step_reply(ONE)
    assert reply.output.tolist() == [2, 2]
    assert reply.late_steps == (ended, own)
    assert await session.settle() == ()


async def test_what_the_reset_of_a_member_waits_for_is_told(client: AsyncClient, server: CountingServer) -> None:
    group = await client.group(["a", "b"])
    server.gate.clear()
    with pytest.raises(GroupError) as caught:
        await group.step([ONE, ONE], timeout=0.03)
    late = {name: error.late_step for name, error in caught.value.errors.items()}
    server.gate.set()
    await group.reset(["a"])
    assert (await group.settle()) == {name: (step,) for name, step in late.items()}
    assert all(step is not None and step.applied for step in late.values())
    assert (await group.step([ONE, ONE])).tolist() == [[1, 1], [2, 2]]


async def test_what_the_removal_of_a_member_waits_for_is_told(client: AsyncClient, server: CountingServer) -> None:
    group = await client.group(["a", "b"])
    server.gate.clear()
    with pytest.raises(GroupError) as caught:
        await group.step({"a": ONE}, timeout=0.03)
    server.gate.set()
    await group.remove(["a"])
    reply = await group.step_reply({"b": ONE})
    assert reply.late_steps == {"a": (caught.value.errors["a"].late_step,)}
    assert reply.late_steps["a"][0].applied
