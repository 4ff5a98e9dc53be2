"""A task that is cancelled just when what it waits for comes: the cancellation counts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import numpy as np
import pytest
from cellkeeper import AsyncClient, AsyncGroup, AsyncSession
from cellkeeper._session.time_limit import within

from .counting_server import CountingServer

X = np.array([1, 0], np.float32)
Steps = tuple[Callable[[], Awaitable[object]], Callable[[], Awaitable[object]]]


def of_session(session: AsyncSession, group: AsyncGroup) -> Steps:
    return lambda: session.step(X), lambda: session.state()


def of_group(session: AsyncSession, group: AsyncGroup) -> Steps:
    return lambda: group.step(np.stack([X])), lambda: group.state()


@pytest.mark.parametrize("of", [of_session, of_group])
async def test_a_call_that_waits_for_earlier_steps(
    client: AsyncClient, server: CountingServer, of: Callable[[AsyncSession, AsyncGroup], Steps]
) -> None:
    step, read = of(await client.session("a"), await client.group(["b"]))
    server.gate.clear()
    stepping = asyncio.ensure_future(step())
    await asyncio.sleep(0)  # it is submitted
    reading = asyncio.ensure_future(read())
    stepping.add_done_callback(lambda _: reading.cancel())
    await asyncio.sleep(0)  # it waits
    server.gate.set()
    await asyncio.wait([reading], timeout=20)
    assert stepping.done()
    assert reading.cancelled()


async def test_the_result_of_a_future() -> None:
    waited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    waiting = asyncio.ensure_future(within(20, waited))
    await asyncio.sleep(0)
    waited.set_result(1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_what_takes_too_long_is_cancelled() -> None:
    never = asyncio.ensure_future(asyncio.Event().wait())
    with pytest.raises(asyncio.TimeoutError):
        await within(0.01, never)
    assert never.cancelled()
