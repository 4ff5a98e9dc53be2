"""The loop itself: it never sleeps while something can be started, and it ends when it should."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from cellkeeper_service.core import loop as loop_module
from cellkeeper_service.core.store_calls import MAX_SCANS
from cellkeeper_service.domain.position import advance
from cellkeeper_service.errors import Reason, Rejection

from .counting_engine import expected
from .loop import Server, outputs, play
from .world import key, pack


def test_what_a_late_chunk_leaves_ready_is_started_without_another_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """The chunk's deadline passes behind another's commit. What waits behind it needs a record, and nothing else
    happens that could wake the loop."""
    monkeypatch.setattr(loop_module, "EXPIRY_SECONDS", 3600.0)

    async def test() -> None:
        server = Server()
        server.loop.start()
        start = await server.open()
        server.store.gate.clear()
        first = server.step(1, start)
        while server.core.has_work or not server.loop.store_calls.any_under_way:  # noqa: ASYNC110
            await asyncio.sleep(0)
        middle = advance(start, pack([1]), 4)
        late = server.step(2, middle, seconds=5.0)
        behind = server.step(3, middle)  # not where the cached state stands: decided on the record
        session = server.core.context.sessions[key()]
        while not session.pending:  # noqa: ASYNC110
            await asyncio.sleep(0)
        server.ahead = 6.0
        server.store.gate.set()
        assert outputs(await first) == expected([1])
        assert (await late).reason is Reason.DEADLINE_PASSED
        assert outputs(await behind) == expected([1, 3])[1:]
        await server.loop.drain()
        server.loop.store_calls.close()

    play(test)


def test_a_drain_waits_for_what_was_taken_and_refuses_the_rest() -> None:
    async def test() -> None:
        server = Server()
        server.loop.start()
        server.store.gate.clear()
        taken = server.step(1)
        drain = asyncio.ensure_future(server.loop.drain())
        await asyncio.sleep(0)
        refused = await server.step(2)
        assert isinstance(refused, Rejection)
        assert refused.reason is Reason.DRAINING
        assert not drain.done()
        server.store.gate.set()
        assert outputs(await taken) == expected([1])
        await drain
        server.loop.store_calls.close()

    play(test)


def test_a_loop_that_fails_says_so_and_does_not_live_on_as_a_shell() -> None:
    async def test() -> None:
        server = Server()
        crashed = asyncio.Event()
        server.loop.start(crashed.set)
        server.core.schedule = lambda engine_is_free=True: 1 / 0  # type: ignore[assignment, method-assign, return-value]
        server.step(1)
        await crashed.wait()
        with pytest.raises(ZeroDivisionError):
            await server.loop.drain()
        server.loop.store_calls.close()

    play(test)


def test_listings_are_bounded_and_do_not_hold_up_commits() -> None:
    async def test() -> None:
        server = Server()
        calls = server.loop.store_calls
        server.store.gate.clear()
        scans = [asyncio.ensure_future(calls.scan("", "m", "", "", 10)) for _ in range(MAX_SCANS)]
        await asyncio.sleep(0)
        with pytest.raises(Rejection) as caught:
            await calls.scan("", "m", "", "", 10)
        assert caught.value.reason is Reason.QUEUE_FULL
        server.loop.start()
        loaded: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        calls.load([], loaded.set_result)
        assert await loaded == []
        server.store.gate.set()
        for scan in scans:
            assert (await scan).sessions == []
        assert (await calls.scan("", "m", "", "", 10)).sessions == []
        await server.loop.drain()
        calls.close()

    play(test)
