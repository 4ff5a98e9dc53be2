"""Groups whose members are on two servers, of which one fails or is silent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from cellkeeper import AsyncClient, AsyncGroup, DeadlineExceeded, GroupError, ModelChanged
from cellkeeper._transport.endpoints import rendezvous

from .conftest import QUICK, until
from .counting_server import CountingServer
from .counting_wire import Refused
from .ones import ONES, count_together


@dataclass
class Pair:
    """Two servers with the same records, and a group with four members on each."""

    one: CountingServer
    two: CountingServer
    client: AsyncClient
    group: AsyncGroup


@pytest.fixture
async def pair(server: CountingServer) -> AsyncIterator[Pair]:
    other = CountingServer(server.records)
    await other.start()
    targets = [f"127.0.0.1:{server.port}", f"127.0.0.1:{other.port}"]
    names: dict[str, list[str]] = {target: [] for target in targets}
    for number in range(1000):
        names[rendezvous(f"s{number}", targets)[0]].append(f"s{number}")
    ids = [name for target in targets for name in names[target][:4]]
    async with AsyncClient(targets, timeout=20, backoff=QUICK) as client:
        yield Pair(server, other, client, await client.group(ids))
    await other.stop()


async def test_a_group_is_split_over_the_endpoints(pair: Pair) -> None:
    await count_together(pair.group, 3)
    assert pair.one.frame_sizes == pair.two.frame_sizes == [4, 4, 4]
    assert {session for session, _, _ in pair.one.seen} == set(pair.group.ids[:4])
    await pair.one.stop()
    await count_together(pair.group, 3, first=4)
    assert pair.two.frame_sizes[-1] == 8
    assert pair.one.applied_steps + pair.two.applied_steps == 8 * 6


async def test_steps_that_wait_for_a_silent_server_hold_up_nobody(pair: Pair) -> None:
    silent, other = {pair.group.ids[0]: [1, 1]}, {pair.group.ids[4]: [1, 1]}
    both = {**other, **silent}
    pair.one.gate.clear()
    steps = [asyncio.ensure_future(pair.group.step(silent)) for _ in range(2)]
    await until(lambda: pair.one.frames == 1)
    assert (await pair.group.step(other))[pair.group.ids[4]].tolist() == [1, 1]
    steps.append(asyncio.ensure_future(pair.group.step(both)))
    steps.append(asyncio.ensure_future(pair.group.step(other)))  # after the one before, in the order of the calls
    await asyncio.sleep(0)
    with pytest.raises(GroupError, match="earlier steps of its members are still unanswered"):
        await pair.group.step(other, timeout=0.05)
    assert not any(step.done() for step in steps)
    pair.one.gate.set()
    results = [{name: y.tolist() for name, y in (await step).items()} for step in steps]
    first, fifth = pair.group.ids[0], pair.group.ids[4]
    assert results == [{first: [1, 1]}, {first: [2, 2]}, {fifth: [2, 2], first: [3, 3]}, {fifth: [3, 3]}]


async def test_a_cancelled_step_tells_what_was_answered_before(pair: Pair) -> None:
    pair.one.gate.clear()
    step = asyncio.ensure_future(pair.group.step(ONES))
    await until(lambda: all(pair.group.positions[name].step == 1 for name in pair.group.ids[4:]))
    step.cancel()
    with pytest.raises(asyncio.CancelledError):
        await step
    pair.one.gate.set()
    settled = await pair.group.settle()
    assert set(settled) == set(pair.group.ids)
    for (late,) in settled.values():
        assert (late.applied, late.position.step, late.steps) == (True, 1, 1)
        assert late.outputs["prediction"].tolist() == [1, 1]


async def test_members_that_come_and_go_leave_nothing_behind(pair: Pair) -> None:
    """A group that lives for months may have millions of them, one after another."""
    for number in range(3):
        await pair.group.add([f"guest-{number}"])
        await pair.group.step({f"guest-{number}": ONES[0]})
        await pair.group.remove([f"guest-{number}"])
    routes: Any = pair.group._sender._routes
    assert not [name for name in routes._ranks if name not in pair.group]


async def test_a_version_that_one_endpoint_lacks(pair: Pair) -> None:
    await count_together(pair.group, 1)
    pair.one.refusals = [Refused("MODEL_CHANGED")] * 4
    await count_together(pair.group, 1, first=2)
    pair.one.refusals = [Refused("MODEL_CHANGED")] * 100
    pair.two.refusals = [Refused("MODEL_CHANGED")] * 100
    with pytest.raises(GroupError) as caught:
        await pair.group.step(ONES)
    assert {type(error) for error in caught.value.errors.values()} == {ModelChanged}
    late = [name for name, error in caught.value.errors.items() if error.late_step is not None]
    pair.one.refusals = pair.two.refusals = []
    y = await pair.group.step(ONES)  # a late step counts, as for a session
    assert y[:, 0].tolist() == [3 + (name in late) for name in pair.group.ids]


async def test_what_was_settled_is_kept_where_other_members_fail(pair: Pair) -> None:
    """One server is silent. The call fails, but does not lose what the other server has settled."""
    pair.one.gate.clear()
    pair.two.gate.clear()
    reply = await pair.group.step_reply(ONES, timeout=0.05)
    assert (reply.ids, dict(reply.outputs)) == ((), {})
    with pytest.raises(GroupError, match="output: 8 of 8 members failed"):
        assert reply.output is None
    pair.two.gate.set()
    with pytest.raises((GroupError, DeadlineExceeded)):
        await pair.group.settle(timeout=0.5)
    assert set(pair.group.unsettled) == set(pair.group.ids[:4])
    pair.one.gate.set()
    settled = await pair.group.settle()
    assert set(settled) == set(pair.group.ids)
    assert [[step.applied for step in steps] for steps in settled.values()] == [[True]] * 8
