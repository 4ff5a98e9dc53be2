"""A timeout is for a whole call, also if that waits for steps and makes several calls to the server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from cellkeeper import (
    AsyncClient,
    AsyncGroup,
    AsyncSession,
    DeadlineExceeded,
    GroupError,
    ServerError,
    WrongEventLoop,
)

from .conftest import until
from .counting_server import CountingServer

TIMEOUT_S = 20.0
STATE = {"h": np.zeros((1, 2), np.float32)}


async def opens(client: AsyncClient, session: AsyncSession) -> object:
    client._models.clear()
    return await client.session("b", initial_state=STATE, timeout=TIMEOUT_S)


async def carries_over(client: AsyncClient, session: AsyncSession) -> None:
    with pytest.raises(ServerError, match="not implemented"):  # by this server
        await session.carry_over("reset", timeout=TIMEOUT_S)


CALLS: dict[str, tuple[int, Callable[[AsyncClient, AsyncSession], Awaitable[object]]]] = {
    "session": (3, opens),  # GetModel, Open, GetModel
    "reset": (2, lambda _, session: session.reset(timeout=TIMEOUT_S)),  # and GetSession
    "set_state": (2, lambda _, session: session.set_state(STATE, timeout=TIMEOUT_S)),
    "state": (1, lambda _, session: session.state(timeout=TIMEOUT_S)),
    "delete": (1, lambda _, session: session.delete(timeout=TIMEOUT_S)),
    "carry_over": (2, carries_over),
}


@pytest.mark.parametrize("name", CALLS)
async def test_each_part_has_what_is_left(name: str, client: AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    session = await client.session("a")
    await session.step([1.0, 1.0])
    given: list[float] = []
    call, drained = client._call, session._sender.drained

    async def recorded(method: str, request: Any, session: str, timeout: float, *rest: Any) -> Any:
        given.append(timeout)
        return await call(method, request, session, timeout, *rest)

    async def recorded_wait(timeout: float) -> None:
        given.append(timeout)
        await drained(timeout)

    monkeypatch.setattr(client, "_call", recorded)
    monkeypatch.setattr(session._sender, "drained", recorded_wait)
    parts, use = CALLS[name]
    await use(client, session)
    assert len(given) == parts + (name != "session")  # and the wait for earlier steps
    assert [TIMEOUT_S, *given] == sorted({TIMEOUT_S, *given}, reverse=True)


GROUP_CALLS: dict[str, tuple[int, Callable[[AsyncClient, AsyncGroup], Awaitable[object]]]] = {
    "group": (2, lambda client, _: client.group(["b"], timeout=TIMEOUT_S)),  # GetModel, OpenMany
    "add": (1, lambda _, group: group.add(["b"], timeout=TIMEOUT_S)),
    "add another version": (2, lambda _, group: group.add(["other"], timeout=TIMEOUT_S)),  # and GetModel
    "settle": (1, lambda _, group: group.settle(timeout=TIMEOUT_S)),  # the wait for earlier steps, as below
    "remove": (1, lambda _, group: group.remove(["a"], timeout=TIMEOUT_S)),
    "reset": (3, lambda _, group: group.reset(timeout=TIMEOUT_S)),  # Reset, OpenMany
    "state": (2, lambda _, group: group.state(timeout=TIMEOUT_S)),
    "delete": (2, lambda _, group: group.delete(timeout=TIMEOUT_S)),
}


@pytest.mark.parametrize("name", GROUP_CALLS)
async def test_each_part_of_a_groups_call_has_what_is_left(
    name: str, client: AsyncClient, server: CountingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = await client.group(["a"])
    await group.step([[1.0, 1.0]])
    given: list[float] = []
    call, held = client._call, group._sender.held

    async def recorded(method: str, request: Any, session: str, timeout: float, *rest: Any) -> Any:
        given.append(timeout)
        return await call(method, request, session, timeout, *rest)

    def recorded_wait(members: Any, timeout: float) -> Any:
        given.append(timeout)
        return held(members, timeout)

    monkeypatch.setattr(client, "_call", recorded)
    monkeypatch.setattr(group._sender, "held", recorded_wait)
    server.of_other_version = {"other"}
    parts, use = GROUP_CALLS[name]
    if name == "add another version":
        with pytest.raises(GroupError, match="missing_values"):
            await use(client, group)
    else:
        await use(client, group)
    assert len(given) == parts
    assert [TIMEOUT_S, *given] == sorted({TIMEOUT_S, *given}, reverse=True)


async def removal_behind_a_step(group: AsyncGroup, server: CountingServer) -> asyncio.Future[Any]:
    """Returns both, under way: the removal of "a" waits for the step, which waits for the server's gate."""
    server.gate.clear()
    step = asyncio.ensure_future(group.step([[1.0, 1.0]] * 2))
    await until(lambda: server.frames == 1)
    removal = asyncio.ensure_future(group.remove(["a"]))
    await asyncio.sleep(0)
    return asyncio.gather(step, removal)


async def test_a_turn_that_does_not_come_in_time(client: AsyncClient, server: CountingServer) -> None:
    """Calls that change the members run one after another; each waits for its turn within its own timeout."""
    group = await client.group(["a", "b"])
    under_way = await removal_behind_a_step(group, server)
    cancelled = asyncio.ensure_future(group.add(["c"]))
    await asyncio.sleep(0)
    with pytest.raises(DeadlineExceeded, match="another call that changes the members is still under way"):
        await group.reset(timeout=0.03)
    cancelled.cancel()
    addition = asyncio.ensure_future(group.add(["d"]))
    await asyncio.wait([cancelled])
    assert group.ids == ("a", "b")
    assert not addition.done()
    server.gate.set()
    await asyncio.gather(under_way, addition)
    assert group.ids == ("b", "d")


async def test_a_turn_in_another_event_loop(client: AsyncClient, server: CountingServer) -> None:
    """It is refused at once, and does not hold up the calls in the group's own loop."""
    group = await client.group(["a", "b"])
    under_way = await removal_behind_a_step(group, server)
    for change in (group.add, group.remove, group.reset, group.delete):
        with pytest.raises(WrongEventLoop):
            await asyncio.to_thread(asyncio.run, change(["a"], timeout=1))
    server.gate.set()
    await under_way
    await group.reset()
    assert group.ids == ("b",)


async def test_a_turn_of_a_session_that_does_not_come_in_time(client: AsyncClient, server: CountingServer) -> None:
    """Calls that end its generation run one after another, too."""
    session = await client.session("a")
    server.gate.clear()
    step = asyncio.ensure_future(session.step([1.0, 1.0]))
    await until(lambda: server.frames == 1)
    reset = asyncio.ensure_future(session.reset())
    await asyncio.sleep(0)
    with pytest.raises(DeadlineExceeded, match="another call that restarts or deletes the session is still under way"):
        await session.delete(timeout=0.03)
    server.gate.set()
    assert (await step).tolist() == [1, 1]
    assert await reset == session.position == server.records["a"].position
