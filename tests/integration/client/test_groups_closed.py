"""Calls of a group that wait when the group or its client is closed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from cellkeeper import AsyncClient, AsyncGroup, Closed, GroupError

from .conftest import until
from .counting_server import CountingServer
from .ones import IDS, ONES


async def test_calls_that_wait_when_their_group_is_closed(server: CountingServer, group: AsyncGroup) -> None:
    """They are not made any more, whichever of their members have steps in flight."""
    server.gate.clear()
    first = asyncio.ensure_future(group.step({"s0": [1, 1]}))
    await until(lambda: server.frames == 1)
    row = {"s1": [1, 1]}
    calls: list[Any] = [group.step({"s0": [1, 1], **row}), group.peek(row), group.state(["s1"]), group.settle()]
    waiting = [asyncio.ensure_future(call) for call in calls]
    await asyncio.sleep(0)
    await group.close()
    for call in (first, *waiting):
        with pytest.raises(GroupError) as caught:
            await call
        assert set(map(str, caught.value.errors.values())) == {"the group was closed"}
        assert ("s1" in caught.value.errors) == (call is not first)


async def test_closing_ends_what_waits(server: CountingServer, client: AsyncClient, group: AsyncGroup) -> None:
    server.gate.clear()
    waiting = [asyncio.ensure_future(group.step(ONES)) for _ in range(2)]
    await until(lambda: server.frames == 1)
    await group.close()
    for task, sent in zip(waiting, (True, False), strict=True):
        with pytest.raises(GroupError) as caught:
            await task
        assert {type(error) for error in caught.value.errors.values()} == {Closed}
        assert all((error.late_step is not None) == sent for error in caught.value.errors.values())
    with pytest.raises(Closed):
        await group.step(ONES)
    other = await client.group(["z"])
    last = asyncio.ensure_future(other.step([[1, 1]]))
    await asyncio.sleep(0)
    await client.close()
    with pytest.raises(GroupError, match="the client was closed"):
        await last
    server.gate.set()


@pytest.mark.parametrize("call", ["reset", "delete", "remove"])
async def test_a_call_that_waits_for_a_step_does_nothing_once_the_group_is_closed(
    server: CountingServer, group: AsyncGroup, call: str
) -> None:
    server.gate.clear()
    step = asyncio.ensure_future(group.step(ONES))
    await until(lambda: server.frames == 1)
    waiting = asyncio.ensure_future(getattr(group, call)(["s0"]))
    await asyncio.sleep(0)
    before = server.records["s0"].position.generation
    await group.close()
    with pytest.raises(Closed):
        await waiting
    with pytest.raises(GroupError):
        await step
    assert group.ids == tuple(IDS)
    assert server.records["s0"].position.generation == before
    server.gate.set()
