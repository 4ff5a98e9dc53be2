"""What a reset, a set state or a removal waits for: the late steps before it, and how they are told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from cellkeeper import AsyncClient, AsyncSession, GroupError

from .counting_server import CountingServer
from .counting_wire import Refused
from .late_steps import timed_out
from .ones import ONE


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
