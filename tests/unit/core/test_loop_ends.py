"""How the loop ends: drained, with a lost engine, or because it fails."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from cellkeeper_service.core import loop as loop_module
from cellkeeper_service.core.limits import Limits
from cellkeeper_service.domain.engine import Computed, EngineLost
from cellkeeper_service.domain.position import advance
from cellkeeper_service.domain.record import Record
from cellkeeper_service.domain.store import Load, StoreError
from cellkeeper_service.errors import Reason, Rejection

from .counting_engine import expected
from .loop import GatedStore, Server, outputs, play
from .world import pack


def test_a_lost_engine_ends_the_loop_once_what_was_computed_is_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_module, "EXPIRY_SECONDS", 3600.0)

    async def test() -> None:
        server, crashes = Server(), list[int]()
        server.loop.start(lambda: crashes.append(server.core.unanswered))
        places = {name: await server.open(name) for name in "abc"}
        server.store.gate.clear()
        computed = server.step(1, places["a"], session="a")
        while not server.loop.store_calls.any_under_way:  # noqa: ASYNC110
            await asyncio.sleep(0)

        def lost(*given: Any) -> Computed:
            raise EngineLost("cuda:0 failed")

        run = server.engine.run
        monkeypatch.setattr(server.engine, "run", lost)
        at_fault = server.step(2, places["b"], session="b")
        assert (await at_fault).message.startswith("cuda:0 failed; the request was not applied")
        assert crashes == [1]
        monkeypatch.setattr(server.engine, "run", run)  # nothing uses it any more
        assert (await server.step(3, places["c"], session="c")).reason is Reason.DRAINING
        behind = advance(places["a"], pack([1]), 4)
        assert (await server.step(4, behind, session="a")).reason is Reason.DRAINING
        server.store.gate.set()
        assert outputs(await computed) == expected([1])
        while server.loop.running:  # noqa: ASYNC110 - it ends by itself
            await asyncio.sleep(0)
        with pytest.raises(EngineLost, match="cuda:0 failed"):
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


def test_a_drain_tells_those_too_that_were_refused_just_before_it() -> None:
    """Nothing is unanswered by then, but the refused callers have not been told yet."""

    async def test() -> None:
        server = Server(limits=Limits(max_request_bytes=1))
        server.loop.start()
        await asyncio.sleep(0)
        refused = server.step(1)
        await server.loop.drain()
        assert refused.done()
        assert refused.result().reason is Reason.QUEUE_FULL
        server.loop.store_calls.close()

    play(test)


class Unreadable(GatedStore):
    """A store whose reads wait for the gate, then fail."""

    def load_many(self, loads: Sequence[Load]) -> list[Record | StoreError | None]:
        self.gate.wait(10)
        return [StoreError("lost")] * len(loads)


def test_a_drain_tells_the_last_ones_whose_session_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_module, "EXPIRY_SECONDS", 3600.0)  # it would answer them, too

    async def test() -> None:
        server = Server(store=Unreadable())
        server.loop.start()
        server.store.gate.clear()
        asked = server.step(1)
        while not server.loop.store_calls.any_under_way:  # noqa: ASYNC110
            await asyncio.sleep(0)
        drain = asyncio.ensure_future(server.loop.drain())
        await asyncio.sleep(0)
        server.store.gate.set()
        await drain
        assert asked.done()
        assert asked.result().reason is Reason.STORE_UNAVAILABLE
        server.loop.store_calls.close()

    play(test)


def test_a_loop_that_fails_says_so_and_does_not_live_on_as_a_shell() -> None:
    async def test() -> None:
        server = Server()
        crashed = asyncio.Event()
        server.loop.start(crashed.set)
        server.core.schedule = lambda: 1 / 0  # type: ignore[assignment, method-assign, return-value]
        server.step(1)
        await crashed.wait()
        with pytest.raises(ZeroDivisionError):
            await server.loop.drain()
        server.loop.store_calls.close()

    play(test)
