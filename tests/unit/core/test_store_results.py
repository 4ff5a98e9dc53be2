"""A store that breaks its contract by what it returns fails only the requests of that call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from cellkeeper_service.core.generation_requests import Delete, Deleted
from cellkeeper_service.domain.non_blocking import Stage
from cellkeeper_service.domain.position import Position
from cellkeeper_service.domain.store import Commit, Load
from cellkeeper_service.domain.store import Delete as StoreDelete
from cellkeeper_service.errors import Reason, Rejection

from .counting_engine import expected
from .loop import GatedStore, Server, outputs, play
from .world import key

NAMES = [f"s{index}" for index in range(4)]
WRONG: dict[str, Callable[[list[Any]], Any]] = {
    "one too few": lambda results: results[:-1],
    "one too many": lambda results: [*results, results[0]],
    "none at all": lambda results: [],
    "no list": lambda results: None,
    "no results": lambda results: ["done" for _ in results],
}
LOGGED = "the store broke its contract"


class Wrong(GatedStore):
    """Does what it is asked, but returns something else from the call that `breaks` names."""

    def __init__(self, wrong: Callable[[list[Any]], Any]) -> None:
        super().__init__()
        self.breaks = ""
        self.broken = 0  # calls
        self._wrong = wrong

    def load_many(self, loads: Sequence[Load]) -> Any:
        return self._returned("load", super().load_many(loads))

    def commit_many(self, commits: Sequence[Commit]) -> Any:
        return self._returned("commit", super().commit_many(commits))

    def delete_many(self, deletes: Sequence[StoreDelete]) -> Any:
        return self._returned("delete", super().delete_many(deletes))

    def _returned(self, call: str, results: list[Any]) -> Any:
        if call != self.breaks:
            return results
        self.broken += 1
        return self._wrong(results)


class Started:
    """A commit that has begun, and fails the loop in one of several ways."""

    deadline = float("inf")

    def __init__(self, store: NonBlockingWrong, commits: Sequence[Commit]) -> None:
        self._store = store
        self._commits = commits

    @property
    def stage(self) -> Stage:
        if self._store.wrong_start == "stage":
            raise ZeroDivisionError
        return Stage.WAITING if self._store.wrong_start == "descriptor" else Stage.DONE

    def fileno(self) -> int:
        raise ZeroDivisionError

    def advance(self) -> Stage:
        return Stage.DONE

    def finish(self) -> Any:
        return self._store.commit_many(self._commits)


class NonBlockingWrong(Wrong):
    """A store that also begins commits. wrong_start: what fails of such a commit while commits are to break."""

    wrong_start = ""

    def begin_commit(self, commits: Sequence[Commit]) -> Any:
        return object() if self.breaks and self.wrong_start == "nothing" else Started(self, commits)


def started(store: Wrong, threads: int) -> Server:
    server = Server(slots=16, store=store, threads=threads)
    server.loop.start()
    return server


async def ended(server: Server) -> None:
    assert server.loop.running
    assert server.core.unanswered == 0
    await server.loop.drain()
    server.loop.store_calls.close()


async def stepped(server: Server, value: int, places: dict[str, Position] | None = None) -> list[Any]:
    """Returns each session's reply."""
    asked = [server.step(value, (places or {}).get(name), session=name) for name in NAMES]
    return [await asyncio.wait_for(reply, 5) for reply in asked]


def why(replies: Sequence[Any]) -> set[Reason]:
    assert all(isinstance(reply, Rejection) for reply in replies), replies
    return {reply.reason for reply in replies}


def logged_once_a_call(store: Wrong, caplog: pytest.LogCaptureFixture) -> None:
    assert store.broken > 0
    assert len([record for record in caplog.records if LOGGED in record.getMessage()]) == store.broken


@pytest.mark.parametrize("threads", [0, 4])
@pytest.mark.parametrize("wrong", WRONG)
def test_loads(wrong: str, threads: int, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        store = Wrong(WRONG[wrong])
        server = started(store, threads)
        places = {name: await server.open(name) for name in NAMES}
        await stepped(server, 1, places)
        store.breaks = "load"
        replies = await stepped(server, 1, places)  # once more, now decided on the records
        assert why(replies) == {Reason.STORE_UNAVAILABLE}
        assert all(LOGGED in reply.message for reply in replies)
        store.breaks = ""
        assert [outputs(reply) for reply in await stepped(server, 1, places)] == [expected([1])] * 4
        logged_once_a_call(store, caplog)
        await ended(server)

    play(test)


@pytest.mark.parametrize(("threads", "store_class"), [(0, Wrong), (4, Wrong), (4, NonBlockingWrong)])
@pytest.mark.parametrize("wrong", WRONG)
def test_commits(wrong: str, threads: int, store_class: type[Wrong], caplog: pytest.LogCaptureFixture) -> None:
    """The commits were made: a step with a position is found in the record; for one without, the outcome is unknown."""

    async def test() -> None:
        store = store_class(WRONG[wrong])
        server = started(store, threads)
        places = {name: await server.open(name) for name in NAMES}
        store.breaks = "commit"
        assert [outputs(reply) for reply in await stepped(server, 1, places)] == [expected([1])] * 4
        assert why(await stepped(server, 2)) == {Reason.OUTCOME_UNKNOWN}
        store.breaks = ""
        assert [outputs(reply) for reply in await stepped(server, 3)] == [expected([1, 2, 3])[2:]] * 4
        logged_once_a_call(store, caplog)
        await ended(server)

    play(test)


@pytest.mark.parametrize("threads", [0, 4])
@pytest.mark.parametrize("wrong", WRONG)
def test_deletes(wrong: str, threads: int, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        store = Wrong(WRONG[wrong])
        server = started(store, threads)
        places = {name: await server.open(name) for name in NAMES}

        def delete(name: str) -> asyncio.Future[Any]:
            until = time.monotonic() + 30
            return server.ask(lambda done: Delete(key(name), until, done, places[name].generation))

        store.breaks = "delete"
        replies = [await asyncio.wait_for(reply, 5) for reply in [delete(name) for name in NAMES]]
        assert all(isinstance(reply, Deleted) for reply in replies)  # each is found to be gone when it is read again
        store.breaks = ""
        assert [outputs(reply) for reply in await stepped(server, 1)] == [expected([1])] * 4
        logged_once_a_call(store, caplog)
        await ended(server)

    play(test)


def test_only_the_item_without_a_result_fails(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        store = Wrong(lambda results: [*results[:-1], "done"] if len(results) == len(NAMES) else results)
        server = started(store, 4)
        await stepped(server, 1)
        store.breaks = "commit"
        *others, last = await stepped(server, 2)
        assert [outputs(reply) for reply in others] == [expected([1, 2])[1:]] * 3
        assert why([last]) == {Reason.OUTCOME_UNKNOWN}
        logged_once_a_call(store, caplog)
        await ended(server)

    play(test)


@pytest.mark.parametrize("wrong_start", ["nothing", "stage", "descriptor"])
def test_a_started_commit_that_cannot_be_watched(wrong_start: str) -> None:
    async def test() -> None:
        store = NonBlockingWrong(lambda results: results)
        server = started(store, 4)
        places = {name: await server.open(name) for name in NAMES}
        store.breaks, store.wrong_start = "commit", wrong_start
        replies = await stepped(server, 1, places)
        if wrong_start == "descriptor":  # the commit can still be finished
            assert [outputs(reply) for reply in replies] == [expected([1])] * 4
        else:
            assert why(replies) == {Reason.STORE_UNAVAILABLE}
        store.breaks = store.wrong_start = ""
        assert [outputs(reply) for reply in await stepped(server, 1, places)] == [expected([1])] * 4
        await ended(server)

    play(test)
