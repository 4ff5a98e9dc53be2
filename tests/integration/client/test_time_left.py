"""A timeout is for a whole call, also if that waits for steps and makes several calls to the server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from cellkeeper import AsyncClient, AsyncSession, ServerError

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
