"""Answers that arrive when nobody reads them any more: what they say comes with the next answer, or from `settle`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest
from cellkeeper import AsyncClient, AsyncSession, Client, DeadlineExceeded, LateStep, Position
from cellkeeper._session.blocking_answer import BlockingAnswer
from cellkeeper._session.late_steps import MOST_UNREAD, LateSteps

from .conftest import QUICK, ServerThread, until
from .counting_server import CountingServer

X = [1.0, 1.0]


async def late_step(step: Callable[[], Awaitable[object]], server: CountingServer) -> None:
    """Makes a step that is sent and not answered in time."""
    server.gate.clear()
    sent = server.frames
    await step()
    await until(lambda: server.frames > sent)
    server.gate.set()


async def cancelled_with_its_answer(
    owner: object,
    submit: str,
    answer: Callable[[tuple[object, ...], object], object],
    call: Callable[[], Awaitable[object]],
) -> None:
    """Cancels the call in the turn of the event loop in which it is answered, before its task runs."""
    submitting = getattr(owner, submit)

    def watched(*arguments: object) -> object:
        submitted = submitting(*arguments)
        future = answer(arguments, submitted)
        assert isinstance(future, asyncio.Future)
        future.add_done_callback(lambda _: task.cancel())
        return submitted

    setattr(owner, submit, watched)
    task = asyncio.ensure_future(call())
    await asyncio.wait([task])
    setattr(owner, submit, submitting)
    assert task.cancelled()


async def test_a_reply_that_tells_of_late_steps(client: AsyncClient, server: CountingServer) -> None:
    session = await client.session("a")

    async def out_of_time() -> None:
        with pytest.raises(DeadlineExceeded):
            await session.step(X, timeout=0.03)

    await late_step(out_of_time, server)
    (late,) = session.unsettled
    await cancelled_with_its_answer(session, "_submit", lambda _, submitted: submitted[0], lambda: session.step(X))  # type: ignore[index]
    reply = await session.step_reply(X)
    assert reply.late_steps[0] is late
    assert [each.position.step for each in reply.late_steps] == [1, 2]


async def test_that_of_a_group(client: AsyncClient, server: CountingServer) -> None:
    group = await client.group(["a", "b"])

    async def out_of_time() -> None:
        assert set((await group.step_reply({"a": X}, timeout=0.03)).errors) == {"a"}

    await late_step(out_of_time, server)
    ((late,),) = group.unsettled.values()
    await cancelled_with_its_answer(group._sender, "submit", lambda given, _: given[-1], lambda: group.step([X, X]))
    reply = await group.step_reply([X, X])
    assert reply.late_steps["a"][0] is late
    assert {name: [each.position.step for each in steps] for name, steps in reply.late_steps.items()} == {
        "a": [1, 2],
        "b": [1],
    }


# ---------------------------------------------------------------------------------------------- streams


def summary(steps: tuple[LateStep, ...]) -> list[tuple[int, int, list[list[float]]]]:
    """Returns the step, the number of time steps and the outputs of each; all have to count."""
    assert all(late.applied for late in steps)
    return [(late.position.step, late.steps, late.outputs["prediction"].reshape(-1, 2).tolist()) for late in steps]


async def all_answered(session: AsyncSession, steps: int) -> None:
    await until(lambda: session.position.step == steps)


async def test_answers_that_a_stream_has_not_yielded(client: AsyncClient, server: CountingServer) -> None:
    session = await client.session("a")
    server.gate.clear()
    stream = session.stream([X] * 5)
    first = asyncio.ensure_future(anext(stream))
    await until(lambda: session._sender.history.in_flight == 5)
    server.gate.set()
    assert (await first).tolist() == X
    await all_answered(session, 5)
    assert (await anext(stream)).tolist() == [2, 2]
    del stream
    assert summary(await session.settle()) == [(step, 1, [[step, step]]) for step in (3, 4, 5)]
    assert (await session.step_reply(X)).late_steps == ()


async def test_the_rest_of_a_chunk(client: AsyncClient) -> None:
    session = await client.session("a")
    stream = session.stream_replies([X] * 6, chunk_steps=3, outputs=["prediction", "state"])
    assert (await anext(stream)).output.tolist() == X
    await all_answered(session, 6)
    await stream.aclose()
    late = await session.settle()
    assert summary(late) == [(3, 2, [[2, 2], [3, 3]]), (6, 3, [[4, 4], [5, 5], [6, 6]])]
    assert late[0].outputs["state.h"].tolist() == [[3, 3]]


async def test_what_a_stream_has_yielded_is_not_late(client: AsyncClient) -> None:
    session = await client.session("a")
    async for _ in session.stream([X] * 4, chunk_steps=2):
        pass
    assert await session.settle() == ()


async def test_those_of_the_generation_before(client: AsyncClient) -> None:
    session = await client.session("a")
    stream = session.stream([X] * 3)
    await anext(stream)
    await all_answered(session, 3)
    ended = session.generation
    await session.reset()
    await stream.aclose()
    late = await session.settle()
    assert summary(late) == [(2, 1, [[2, 2]]), (3, 1, [[3, 3]])]
    assert {step.position.generation for step in late} == {ended}


def test_a_stream_of_threads(threaded: ServerThread) -> None:
    with Client(threaded.target, backoff=QUICK) as client:
        session = client.session("a")
        stream = session.stream([X] * 6, chunk_steps=3)
        assert next(stream).tolist() == X
        del stream
        assert summary(session.settle())[0] == (3, 2, [[2, 2], [3, 3]])
        assert session.position.step == 6


@contextmanager
def ctrl_c_with_the_answer(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Interrupts the next blocking call when the thread of the client has passed the answer on."""
    wait = BlockingAnswer.wait

    def interrupted(answer: BlockingAnswer[object, object]) -> object:
        wait(answer)
        answer.told = False  # the interrupt comes before the caller has looked
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(BlockingAnswer, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            yield


def test_ctrl_c_with_the_answer_of_a_stream(threaded: ServerThread, monkeypatch: pytest.MonkeyPatch) -> None:
    with Client(threaded.target, backoff=QUICK) as client:
        session = client.session("a")
        with ctrl_c_with_the_answer(monkeypatch):
            next(session.stream([X], window=1))
        assert summary(session.settle()) == [(1, 1, [X])]


def test_ctrl_c_with_late_steps(threaded: ServerThread, monkeypatch: pytest.MonkeyPatch) -> None:
    with Client(threaded.target, backoff=QUICK) as client:
        session, group = client.session("a"), client.group(["b", "c"])
        with ctrl_c_with_the_answer(monkeypatch):
            session.step(X)
        with ctrl_c_with_the_answer(monkeypatch):
            session.settle()
        assert summary(session.settle()) == [(1, 1, [X])]
        with ctrl_c_with_the_answer(monkeypatch):
            group.step([X, X])
        with ctrl_c_with_the_answer(monkeypatch):
            group.settle()
        settled = group.settle()
        assert {name: summary(steps) for name, steps in settled.items()} == {"b": [(1, 1, [X])], "c": [(1, 1, [X])]}
        assert group.settle() == {}


def test_ctrl_c_with_late_steps_after_a_reset(threaded: ServerThread, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread has reset the session since `settle` began."""
    with Client(threaded.target, backoff=QUICK) as client:
        session = client.session("a")
        with ctrl_c_with_the_answer(monkeypatch):
            session.step(X)
        settle = session._core.settle

        async def overtaken(*, timeout: float | None = None) -> tuple[LateStep, ...]:
            settled = await settle(timeout=timeout)
            await session._core.reset()
            return settled

        with monkeypatch.context() as patched:
            patched.setattr(session._core, "settle", overtaken)
            with ctrl_c_with_the_answer(monkeypatch):
                session.settle()
        assert summary(session.settle()) == [(1, 1, [X])]


# ---------------------------------------------------------------------------------------------- others who wait


async def test_settling_goes_on_when_an_unsent_step_is_given_up(client: AsyncClient, server: CountingServer) -> None:
    session = await client.session("a")
    server.gate.clear()
    sent = asyncio.ensure_future(session.step(X))
    await until(lambda: server.frames == 1)
    await server.stop()
    await until(lambda: session._sender.history.in_flight == 0)
    unsent = asyncio.ensure_future(session.step(X))
    await until(lambda: len(session._sender.history.unanswered) == 2)
    sent.cancel()
    await asyncio.wait([sent])
    settling = asyncio.ensure_future(session.settle())
    await until(lambda: bool(session._sender._waiting))
    unsent.cancel()
    await asyncio.wait([unsent])
    server.gate.set()
    await server.start(server.port)
    assert [(late.position.step, late.applied) for late in await settling] == [(1, True)]


def test_the_latest_are_kept_of_more_than_can_be() -> None:
    late = LateSteps(bytes(16))
    steps = [LateStep(Position(bytes(16), number, bytes(8)), 1) for number in range(MOST_UNREAD + 1)]
    late.settle(steps[0], True)
    unread = late.take_settled()
    for step in steps[1:]:
        late.settle(step, True)
    late.put_back(unread)
    assert late.take_settled() == tuple(steps[1:])


async def test_a_stream_that_is_left_after_a_reset(client: AsyncClient, server: CountingServer) -> None:
    """Its steps are older than those of the new generation, although their callers stopped waiting later."""
    session = await client.session("a")
    stream = session.stream([X] * 3)
    assert (await anext(stream)).tolist() == X
    await session.settle()
    await session.reset()
    server.gate.clear()
    frames = server.frames
    step = asyncio.ensure_future(session.step(X))
    await until(lambda: server.frames == frames + 1)
    step.cancel()
    await asyncio.wait([step])
    server.gate.set()
    await until(lambda: session.unsettled == ())
    await stream.aclose()
    assert [late.position.step for late in await session.settle()] == [2, 3, 1]
