"""Calls of one session, or of members of a group, take effect in the order in which they are made, whoever makes them.

A task steps without a break: there is always a step before and a step after each of the other calls.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from cellkeeper import AsyncClient, Client, Closed, DeadlineExceeded, GroupError

from testing.bundles import make_bundle
from testing.forked_server import ForkedServer

from .conftest import QUICK
from .counting_server import CountingServer

ONE, OTHER = [1.0], [5.0]  # an input of the steps, and another one, which conflicts with a step at the same position
IDS = ["a", "b", "c"]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    bundle = make_bundle(tmp_path_factory.mktemp("order") / "m", input_size=1, feedback=[0])
    with ForkedServer([bundle], "memory:") as server:
        yield server.target


@asynccontextmanager
async def stepped(step: Callable[[], Awaitable[Any]], tasks: int) -> AsyncIterator[None]:
    """Steps in so many tasks at once, until the end."""
    left = False

    async def steps() -> None:
        while not left:
            await step()

    running = [asyncio.ensure_future(steps()) for _ in range(tasks)]
    await step()
    yield
    left = True
    await asyncio.gather(*running)


@pytest.mark.parametrize("tasks", [1, 3])
async def test_of_a_session(target: str, tasks: int) -> None:
    async with AsyncClient(target, timeout=10, backoff=QUICK) as client:
        session = await client.session("s")
        async with stepped(lambda: session.step(ONE), tasks):
            for number in range(5):
                assert (await session.peek_reply(OTHER)).position.step > number
                assert (await session.forecast(OTHER, steps=3)).shape == (4, 1)
                assert set(await session.state()) == {"h", "c"}
                assert await session.settle() == ()
                copy = await session.fork(f"copy-{number}")
                assert copy.position.step > number
        assert (await session.info()).position == session.position
        await client.delete_many(client.sessions())


@pytest.mark.parametrize("tasks", [1, 3])
async def test_of_a_group(target: str, tasks: int) -> None:
    async with AsyncClient(target, timeout=10, backoff=QUICK) as client:
        group = await client.group(IDS)
        async with stepped(lambda: group.step({"a": ONE, "b": ONE}), tasks):
            for _ in range(5):
                assert (await group.peek({"a": OTHER, "c": OTHER}))["a"].shape == (1,)
                assert (await group.forecast({"a": OTHER, "b": OTHER}, steps=3))["b"].shape == (4, 1)
                assert (await group.state())["h"].shape[0] == 3
                assert await group.settle() == {}
                assert (await group.reset(["a"]))["a"].step == 0
        assert {info.session: info.position async for info in client.sessions()} == group.positions
        await group.delete()


@pytest.mark.parametrize("call", ["remove", "delete"])
async def test_of_members_that_leave(target: str, call: str) -> None:
    """Steps before it count. Those after it are refused for the member that has left, and for no other."""
    async with AsyncClient(target, timeout=10, backoff=QUICK) as client:
        group = await client.group(IDS)
        rows = dict.fromkeys(IDS, ONE)
        steps = [asyncio.ensure_future(group.step(rows)) for _ in range(3)]
        await asyncio.sleep(0)
        left = asyncio.ensure_future(getattr(group, call)(["b"]))
        await asyncio.sleep(0)
        later = [asyncio.ensure_future(group.step(rows)), asyncio.ensure_future(group.step({"b": ONE}))]
        again = asyncio.ensure_future(group.add(["d"]))
        await asyncio.gather(left, again, *steps)
        for step, others in zip(later, (("a", "c"), ()), strict=True):
            with pytest.raises(GroupError, match="session 'b' left the group") as caught:
                await step
            assert isinstance(caught.value.errors["b"], Closed)
            assert (caught.value.ids, caught.value.errors["b"].late_step) == (others, None)
        assert {name: position.step for name, position in group.positions.items()} == {"a": 4, "c": 4, "d": 0}
        assert (await group.step_reply(np.ones((3, 1)))).errors == {}
        await client.delete_many(client.sessions())


async def test_beside_a_reset(target: str) -> None:
    """Whichever the server sees first, the session has no other writer. It may refuse a call before it answers the
    reset."""
    async with AsyncClient(target, timeout=10, backoff=QUICK) as client:
        session, group = await client.session("s"), await client.group(IDS)
        for number in range(30):
            await session.step(ONE)
            calls = [
                session.reset(),
                session.peek(OTHER),
                session.forecast(OTHER, steps=2),
                session.fork(f"f-{number}"),
            ]
            await asyncio.gather(*calls)
            await group.step([ONE] * 3)
            await asyncio.gather(group.reset(["a", "b"]), group.peek([OTHER] * 3), group.forecast([OTHER] * 3, steps=2))
        await client.delete_many(client.sessions())


def test_in_threads(target: str) -> None:
    with Client(target, timeout=10, backoff=QUICK) as client:
        session, group, left = client.session("threads"), client.group(IDS), threading.Event()

        def steps() -> None:
            while not left.is_set():
                session.step(ONE)
                group.step([ONE] * 3)

        thread = threading.Thread(target=steps)
        thread.start()
        try:
            for _ in range(5):
                assert session.peek(OTHER).shape == (1,)
                assert group.peek([OTHER] * 3).shape == (3, 1)
                assert group.state(["b"])["h"].shape[0] == 1
        finally:
            left.set()
            thread.join()
        client.delete_many(client.sessions())


class SlowPeeks(CountingServer):
    """Answers unary steps, as peeks are, once `go` is set. asked: it has one to answer."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.go = asyncio.Event(), asyncio.Event()

    async def Step(self, request: Any, context: Any) -> Any:
        self.asked.set()
        await self.go.wait()
        return await super().Step(request, context)


async def test_a_step_waits_for_a_peek_before_it_but_not_beyond_its_deadline() -> None:
    server = SlowPeeks()
    async with AsyncClient(await server.start(), timeout=20, backoff=QUICK) as client:
        session, group = await client.session("s"), await client.group(["a", "b"])
        peek = asyncio.ensure_future(session.peek([1.0, 1.0]))
        await server.asked.wait()
        later = asyncio.ensure_future(session.step([1.0, 1.0]))
        await asyncio.sleep(0)
        with pytest.raises(DeadlineExceeded, match=r"within 0\.05 s") as caught:
            await session.step([2.0, 2.0], timeout=0.05)
        assert caught.value.late_step is None  # it was not sent
        assert (await group.step([[1, 1]] * 2)).tolist() == [[1, 1]] * 2  # other sessions' steps do not wait
        assert not later.done()
        peek.cancel()
        assert (await later).tolist() == [1, 1]
        server.go.set()
        assert (await session.peek([1.0, 1.0])).tolist() == [2, 2]
    await server.stop()
