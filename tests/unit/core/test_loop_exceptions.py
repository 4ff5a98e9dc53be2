"""An exception inside the core fails one request. Its neighbours are answered, and the loop continues."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from cellkeeper_service.core import advance
from cellkeeper_service.core.guarded_meter import GuardedMeter
from cellkeeper_service.core.requests import Done, Request, Step
from cellkeeper_service.core.session import CachedState, SessionState
from cellkeeper_service.domain.meter import Meter
from cellkeeper_service.domain.position import Position
from cellkeeper_service.domain.record import Record
from cellkeeper_service.domain.store import Commit, CommitResult, Load, StoreError
from cellkeeper_service.errors import Reason, Rejection

from .counting_engine import expected
from .loop import GatedStore, Server, outputs, play
from .world import key, pack

NAMES = [f"s{index}" for index in range(8)]


class Spoiling(GatedStore):
    """A store that returns what no store should, such as a record without a log for one session."""

    def __init__(self, spoil: str) -> None:
        super().__init__()
        self.spoil = spoil
        self.is_spoiling = False

    def load_many(self, loads: Sequence[Load]) -> list[Record | StoreError | None]:
        if self.is_spoiling and self.spoil == "raising":
            raise ZeroDivisionError("a store that breaks its word")
        return [self._spoiled(load, record) for load, record in zip(loads, super().load_many(loads), strict=True)]

    def commit_many(self, commits: Sequence[Commit]) -> list[CommitResult]:
        results = super().commit_many(commits)
        if self.is_spoiling and self.spoil == "a result that is none":
            return [
                result._replace(outcome=None) if commit.key == key(NAMES[3]) else result  # type: ignore[arg-type]
                for commit, result in zip(commits, results, strict=True)
            ]
        return results

    def _spoiled(self, load: Load, record: Record | StoreError | None) -> Any:
        if load.key != key(NAMES[3]) or not self.is_spoiling or not isinstance(record, Record):
            return record
        if self.spoil == "a log that is none":
            return Record(record.header, record.checkpoint, None)  # type: ignore[arg-type]
        return "no record" if self.spoil == "a record that is none" else record


async def retried(server: Server, places: dict[str, Position]) -> dict[str, Any]:
    """Sends each session's first step again, which is decided on the record."""
    server.store.is_spoiling = True  # type: ignore[attr-defined]
    asked = {name: server.step(1, places[name], session=name) for name in NAMES}
    return {name: await asyncio.wait_for(reply, 5) for name, reply in asked.items()}


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [("a log that is none", Reason.INTERNAL_ERROR), ("a record that is none", Reason.STORE_UNAVAILABLE)],
)
def test_a_load_whose_one_record_breaks_the_core(spoil: str, reason: Reason) -> None:
    async def test() -> None:
        server = Server(slots=16, store=Spoiling(spoil))
        server.loop.start()
        places = {name: await server.open(name) for name in NAMES}
        for name in NAMES:
            assert outputs(await server.step(1, places[name], session=name)) == expected([1])
        got = await retried(server, places)
        broken = got.pop(NAMES[3])
        assert isinstance(broken, Rejection)
        assert broken.reason is reason
        assert [outputs(reply) for reply in got.values()] == [expected([1])] * 7
        server.store.is_spoiling = False  # type: ignore[attr-defined]
        again = await server.step(1, places[NAMES[3]], session=NAMES[3])
        assert outputs(again) == expected([1])
        assert server.core.unanswered == 0
        await server.loop.drain()
        server.loop.store_calls.close()

    play(test)


def test_a_step_that_breaks_the_core_when_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The core checks if the step continues at the cached state before it looks at the other steps of the call."""
    original = advance.continues

    def broken(session: SessionState, step: Step) -> CachedState | None:
        if session.key == key(NAMES[3]):
            raise ZeroDivisionError
        return original(session, step)

    async def test() -> None:
        server = Server(slots=16)
        server.loop.start()
        for name in NAMES:
            assert outputs(await server.step(1, session=name)) == expected([1])
        monkeypatch.setattr(advance, "continues", broken)
        asked = {name: server.step(1, session=name) for name in NAMES}
        got = {name: await asyncio.wait_for(reply, 5) for name, reply in asked.items()}
        failed = got.pop(NAMES[3])
        assert isinstance(failed, Rejection)
        assert failed.reason is Reason.INTERNAL_ERROR
        assert [outputs(reply) for reply in got.values()] == [expected([1, 1])[1:]] * 7
        assert server.core.unanswered == 0
        await server.loop.drain()
        server.loop.store_calls.close()

    play(test)


def test_a_commit_whose_one_result_breaks_the_core() -> None:
    async def test() -> None:
        server = Server(slots=16, store=Spoiling("a result that is none"))
        server.loop.start()
        server.store.is_spoiling = True  # type: ignore[attr-defined]
        asked = {name: server.step(1, session=name) for name in NAMES}
        got = {name: await asyncio.wait_for(reply, 5) for name, reply in asked.items()}
        broken = got.pop(NAMES[3])
        assert isinstance(broken, Rejection)
        assert broken.reason is Reason.OUTCOME_UNKNOWN
        assert [outputs(reply) for reply in got.values()] == [expected([1])] * 7
        await server.loop.drain()
        server.loop.store_calls.close()

    play(test)


def test_a_store_without_threads_that_raises_is_one_that_did_not_answer() -> None:
    async def test() -> None:
        server = Server(slots=16, store=Spoiling("raising"), threads=0)
        server.loop.start()
        places = {name: await server.open(name) for name in NAMES}
        got = await retried(server, {name: places[name].changed(step=9) for name in NAMES})
        assert {reply.reason for reply in got.values()} == {Reason.STORE_UNAVAILABLE}
        server.store.is_spoiling = False  # type: ignore[attr-defined]
        assert outputs(await server.step(1, places[NAMES[0]], session=NAMES[0])) == expected([1])
        await server.loop.drain()
        server.loop.store_calls.close()

    play(test)


def test_a_caller_that_cannot_be_told_is_the_only_one_who_is_not() -> None:
    async def test() -> None:
        server = Server(slots=16)
        server.loop.start()

        def broken(requests: Sequence[Request]) -> None:
            raise ZeroDivisionError

        def step(done: Done) -> Step:
            wanted = frozenset(["prediction"])
            return Step(key("broken"), float("inf"), broken, pack([1]), 1, None, None, False, wanted, False)

        server.ask(step)
        asked = [server.step(1, session=name) for name in NAMES]
        assert [outputs(await asyncio.wait_for(reply, 5)) for reply in asked] == [expected([1])] * 8
        again = await asyncio.wait_for(server.step(2, session="broken"), 5)
        assert outputs(again) == expected([1, 2])[1:], "the step was committed, whoever was told"
        await server.loop.drain()
        server.loop.store_calls.close()

    play(test)


class RaisingMeter(Meter):
    """A meter that fails at every call. asked: the names of the calls."""

    def __init__(self) -> None:
        self.asked: set[str] = set()
        for name in [name for name in vars(Meter) if not name.startswith("_")]:
            setattr(self, name, self._raising(name))

    def _raising(self, name: str) -> Callable[..., None]:
        def count(*arguments: object) -> None:
            self.asked.add(name)
            raise ZeroDivisionError(name)

        return count


@pytest.mark.parametrize("threads", [0, 4])
def test_a_meter_that_raises_is_logged_and_nobodys_error(threads: int, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        meter, store = RaisingMeter(), GatedStore()
        server = Server(slots=1, store=store, threads=threads, meter=meter)
        server.loop.start()
        places = {name: await asyncio.wait_for(server.open(name), 5) for name in NAMES}
        for value in (1, 2):  # each session takes the slot of the one before it
            asked = [server.step(value, session=name) for name in NAMES]
            replies = [await asyncio.wait_for(reply, 5) for reply in asked]
            assert [outputs(reply) for reply in replies] == [expected([1, 2][:value])[-1:]] * 8
        again = await asyncio.wait_for(server.step(1, places[NAMES[0]], session=NAMES[0]), 5)
        assert again.reason is Reason.STEP_COMPACTED
        late = await asyncio.wait_for(server.step(1, seconds=-1.0), 5)
        assert late.reason is Reason.DEADLINE_PASSED
        assert server.loop.running
        await server.loop.drain()
        server.loop.store_calls.close()
        told = {"steps_done", "rejected", "tick", "loaded", "rebuilt", "committed", "evicted", "store_call"}
        assert meter.asked >= told
        logged = {str(record.exc_info[1]) for record in caplog.records if record.exc_info}
        assert logged == meter.asked

    play(test)


def test_a_meter_is_guarded_as_a_whole() -> None:
    events = {name for name in vars(Meter) if not name.startswith("_")}
    assert events == {*vars(GuardedMeter(Meter()))}
