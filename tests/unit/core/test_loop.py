"""The loop itself: it never sleeps while there is something to start."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest
from cellkeeper_service.core import loop as loop_module
from cellkeeper_service.core.batch import Batch
from cellkeeper_service.core.limits import Limits
from cellkeeper_service.core.requests import Step, StepReply
from cellkeeper_service.core.store_calls import MAX_SCANS
from cellkeeper_service.domain.engine import Array, Computed
from cellkeeper_service.domain.position import advance
from cellkeeper_service.domain.record import Record
from cellkeeper_service.domain.store import Load, Postponed, StoreError
from cellkeeper_service.errors import Reason, Rejection

from .counting_engine import expected
from .loop import GatedStore, Server, outputs, play
from .world import key, pack


def test_what_a_late_chunk_leaves_ready_is_started_without_another_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """The chunk's deadline passes while another's commit is under way.

    The request after it needs a record, and no other event would wake the loop.
    """
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
        behind = server.step(3, middle)  # not at the cached position, so it is decided on the record
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


def test_a_commit_that_had_no_room_is_sent_as_soon_as_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_module, "EXPIRY_SECONDS", 3600.0)

    async def test() -> None:
        server = Server(threads=2)  # one write at a time
        server.loop.start()
        places = {name: await server.open(name) for name in "ab"}
        server.store.gate.clear()
        first = server.step(1, places["a"], session="a")
        while not server.loop.store_calls.any_under_way:  # noqa: ASYNC110
            await asyncio.sleep(0)
        second = server.step(2, places["b"], session="b")
        while not server.core.wants_commit:  # noqa: ASYNC110
            await asyncio.sleep(0)
        for _ in range(100):  # until nothing but the answer of the store can wake the loop
            await asyncio.sleep(0)
        server.store.gate.set()
        assert [outputs(await first), outputs(await second)] == [expected([1]), expected([2])]
        await server.loop.drain()
        server.loop.store_calls.close()

    play(test)


def test_what_a_load_leaves_out_is_loaded_as_soon_as_it_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_module, "EXPIRY_SECONDS", 3600.0)

    class LeavesOut(GatedStore):
        left_out = 0

        def load_many(self, loads: Sequence[Load]) -> list[Record | StoreError | None]:
            if self.left_out < 2:
                self.left_out += 1
                return [Postponed(alone=self.left_out == 1)] * len(loads)
            return super().load_many(loads)

    async def test() -> None:
        server = Server(store=LeavesOut())
        server.loop.start()
        assert (await server.open()).step == 0
        await server.loop.drain()
        server.loop.store_calls.close()

    play(test)


def test_what_a_batch_has_computed_is_committed_before_the_next_one_of_the_tick(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test() -> None:
        server = Server(threads=0)
        server.loop.start()
        places = {name: await server.open(name) for name in "ab"}
        run, steps_before = server.engine.run, list[list[int]]()

        def watched(*given: Any) -> Computed:
            records = server.store.load_many([Load(key(name), False) for name in places])
            steps_before.append([one.position.step for one in records if isinstance(one, Record)])
            return run(*given)

        monkeypatch.setattr(server.engine, "run", watched)
        until = time.monotonic() + 30
        chunks = {"a": [1], "b": [2, 3]}  # of different lengths, so in two batches
        replies = [
            server.ask(
                lambda done, name=name, data=data: Step(  # type: ignore[misc]
                    key(name), until, done, pack(data), len(data), places[name], None, False, frozenset(), False
                )
            )
            for name, data in chunks.items()
        ]
        for reply in replies:
            assert isinstance(await reply, StepReply)
        assert steps_before == [[0, 0], [1, 0]]
        await server.loop.drain()
        server.loop.store_calls.close()

    play(test)


def test_a_batch_that_may_take_long_is_computed_on_another_thread_and_requests_queue_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test() -> None:
        server = Server()
        server.loop = server.loop_on(server.loop.store_calls, batch_seconds=1.0)
        server.loop.start()
        run, is_running, go_on = server.engine.run, threading.Event(), threading.Event()

        def held_back(*given: Any) -> Computed:
            is_running.set()
            assert go_on.wait(10)
            return run(*given)

        monkeypatch.setattr(server.engine, "run", held_back)
        first = server.step(1, session="a")
        while not is_running.is_set():  # noqa: ASYNC110
            await asyncio.sleep(0)  # on the loop's own thread this would never end
        behind = [server.step(2, session=name) for name in "bc"]
        go_on.set()
        assert outputs(await first) == expected([1])
        assert [outputs(await reply) for reply in behind] == [expected([2])] * 2
        assert server.engine.calls == [(1, 1), (1, 2)]
        await server.loop.drain()
        server.loop.store_calls.close()

    play(test)


@pytest.mark.parametrize("threads", [0, 4])
def test_a_step_by_itself_takes_one_turn(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither its batch nor the store's answer is followed by an idle turn."""
    monkeypatch.setattr(loop_module, "EXPIRY_SECONDS", 3600.0)

    async def test() -> None:
        server = Server(threads=threads)
        server.loop.start()
        position, turns, schedule = await server.open(), 0, server.core.schedule

        def counted() -> list[Batch]:
            nonlocal turns
            turns += 1
            return schedule()

        monkeypatch.setattr(server.core, "schedule", counted)
        for value in (1, 2, 3, 4):
            reply = await server.step(value, position)
            assert isinstance(reply, StepReply)
            position = reply.position
        assert turns == 4
        await server.loop.drain()
        server.loop.store_calls.close()

    play(test)


def test_an_engine_that_refuses_one_row_fails_its_request_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        server = Server()
        server.loop.start()
        run = server.engine.run

        def picky(inputs: Array, *more: Any) -> Computed:
            if (inputs == 13).any():
                raise ValueError("13")
            return run(inputs, *more)

        monkeypatch.setattr(server.engine, "run", picky)
        values = {"a": 1, "b": 13, "c": 3}
        places = {name: await server.open(name) for name in values}
        replies = {name: server.step(value, places[name], session=name) for name, value in values.items()}
        assert (await replies["b"]).reason is Reason.INTERNAL_ERROR
        assert [outputs(await replies[name]) for name in "ac"] == [expected([1]), expected([3])]
        await server.loop.drain()
        server.loop.store_calls.close()

    play(test)


def test_who_is_not_taken_is_told_at_once() -> None:
    """Otherwise a long batch could keep the loop from its next turn."""

    async def test() -> None:
        server = Server(limits=Limits(max_request_bytes=1))
        server.loop.start()
        refused = server.step(1)
        assert refused.done()
        assert refused.result().reason is Reason.QUEUE_FULL
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
