"""Letting calls in between two ticks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

from cellkeeper_service.scheduler import entrance
from cellkeeper_service.scheduler.entrance import Entrance

from .loop import play


def waits(letting: Coroutine[Any, Any, None]) -> bool:
    """Whether it gives the loop a turn at all."""
    try:
        letting.send(None)
    except StopIteration:
        return False
    letting.close()
    return True


def test_nobody_is_waited_for_where_no_call_came() -> None:
    door = Entrance()
    assert not waits(door.let_in(0.001))
    door.came()
    assert waits(door.let_in(0.001))


def test_calls_on_their_way_are_let_in() -> None:
    async def test() -> None:
        door = Entrance()
        arrived = 0

        async def call(turns: int) -> None:
            nonlocal arrived
            for _ in range(turns):
                busy_until = time.monotonic() + 2 * entrance.EMPTY_TURN_SECONDS
                while time.monotonic() < busy_until:
                    pass
                await asyncio.sleep(0)
            door.came()
            arrived += 1

        door.came()
        calls = [asyncio.ensure_future(call(turns)) for turns in (1, 4, 8)]
        await door.let_in(10.0)  # so that a machine that stands still for a moment does not end it
        assert arrived == len(calls)
        await asyncio.gather(*calls)

    play(test)


def test_it_ends_while_calls_still_come() -> None:
    async def test() -> None:
        door = Entrance()
        ended = False

        async def keep_coming() -> None:
            while not ended:
                door.came()
                busy_until = time.monotonic() + 2 * entrance.EMPTY_TURN_SECONDS
                while time.monotonic() < busy_until:
                    pass
                await asyncio.sleep(0)

        door.came()
        coming = asyncio.ensure_future(keep_coming())
        await door.let_in(0.001)
        ended = True
        await coming

    play(test)


def test_who_is_alone_is_not_kept_waiting_and_company_is_noticed() -> None:
    async def test() -> None:
        door = Entrance()
        for _ in range(entrance.ALONE):
            door.came()
            await door.let_in(0.001)
        for _ in range(entrance.AGAIN):
            door.came()
            assert not waits(door.let_in(0.001))
        door.came()
        assert waits(door.let_in(0.001)), "it is never tried again"
        for _ in range(entrance.ALONE):
            door.came()
            await door.let_in(0.001)
        door.came()
        door.came()
        assert waits(door.let_in(0.001)), "two are kept apart"

    play(test)
