"""Calls of a group that wait for members which are reset, deleted or removed meanwhile."""

from __future__ import annotations

import asyncio

import numpy as np
from cellkeeper import AsyncGroup, Closed, DeadlineExceeded
from cellkeeper._session.time_limit import TimeLeft

from .conftest import until
from .counting_record import fresh
from .counting_server import CountingServer
from .ones import ONES


async def test_a_read_of_a_member_that_is_reset_before_the_wait_for_it(group: AsyncGroup) -> None:
    group._sender.alone(0, "s0")  # as after a lost step
    read = asyncio.ensure_future(group.state(["s0"]))
    restarted = asyncio.ensure_future(group._members.restart({"s0": group.positions["s0"]}, TimeLeft(20)))
    assert (await read)["h"].shape == (1, 1, 2)
    assert await restarted == {}


async def test_a_step_that_waits_for_others_when_a_member_is_deleted(server: CountingServer, group: AsyncGroup) -> None:
    """That member's error stays, though the others run out of time."""
    server.gate.clear()
    first = asyncio.ensure_future(group.step({"s0": [1, 1]}))
    await until(lambda: server.frames == 1)
    deleted = asyncio.ensure_future(group.delete(["s1"]))
    await asyncio.sleep(0)
    waiting = asyncio.ensure_future(group.step_reply({"s0": [1, 1], "s1": [1, 1]}, timeout=0.5))
    await deleted
    errors = (await waiting).errors
    assert [(name, type(error)) for name, error in errors.items()] == [("s0", DeadlineExceeded), ("s1", Closed)]
    server.gate.set()
    assert (await first)["s0"].tolist() == [1, 1]


async def test_a_step_that_waits_for_a_member_goes_on_with_its_new_generation(
    server: CountingServer, group: AsyncGroup
) -> None:
    """Others reset and step the member while an older step of it is still in flight."""
    await group.step({"s0": [5, 5]})
    server.gate.clear()
    first = asyncio.ensure_future(group.step_reply({"s0": [1, 1]}))
    await until(lambda: server.frames == 2)
    second = asyncio.ensure_future(group.step({"s0": [1, 1]}))
    await asyncio.sleep(0)
    server.records["s0"] = fresh(b"")
    await group._members.restart({"s0": server.records["s0"].position}, TimeLeft(20))  # as at the end of a reset
    assert isinstance((await first).errors["s0"], Closed)
    server.gate.set()
    assert (await second)["s0"].tolist() == [1, 1]


async def test_members_go_while_steps_wait(server: CountingServer, group: AsyncGroup) -> None:
    server.gate.clear()
    steps = [asyncio.ensure_future(group.step(ONES)) for _ in range(3)]
    removal = asyncio.ensure_future(group.remove(["s0", "s1"]))
    await until(lambda: server.frames == 1)
    server.gate.set()
    await removal
    assert [(await step).tolist() for step in steps] == [[[value, value]] * 8 for value in (1, 2, 3)]
    assert await group.add(["t"]) == {"t": True}
    assert (await group.step(np.ones((7, 2))))[:, 0].tolist() == [4] * 6 + [1]
