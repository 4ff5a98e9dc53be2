"""Steps and streams of callers that stop waiting for a server that stalls: which of them count, and how it is told."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from cellkeeper import AsyncClient, Client, DeadlineExceeded, LateStep

from testing.bundles import counting_bundle
from testing.forked_server import ForkedServer

from .conftest import QUICK
from .late_steps import numbers, sample
from .ones import ONE


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
