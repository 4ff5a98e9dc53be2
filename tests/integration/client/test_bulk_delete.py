"""Bulk deletes: sessions are deleted together, each in the listed generation; the program asks for confirmation."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from cellkeeper import AsyncClient, Client, Deleted, InvalidArgument, Position
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from testing.forked_program import Ended, run_forked

from .conftest import QUICK
from .counting_server import CountingServer
from .counting_wire import Refused
from .terminal import at_a_terminal

COUNT = 150  # more than fit into two requests


@pytest.fixture
def client(real_target: str) -> Iterator[Client]:
    with Client(real_target) as made:
        made.delete_many(made.sessions())  # left on that server by other tests
        yield made
        made.delete_many(made.sessions())


def make(client: Client, *names: str) -> None:
    for name in names:
        client.session(name)


def ids(client: Client) -> set[str]:
    return {info.session for info in client.sessions()}


def test_those_that_are_listed_are_deleted_and_no_others(client: Client) -> None:
    make(client, "new", *(f"old/{number}" for number in range(COUNT)))
    seen: list[int] = []
    done = client.delete_many(client.sessions("old/"), on_progress=lambda so_far: seen.append(so_far.total))
    assert (done.deleted, done.gone, done.failed, done.failures) == (COUNT, 0, 0, {})
    assert repr(done) == f"Deleted({COUNT} deleted, 0 gone, 0 failed)"
    assert seen == [64, 128, 150]
    assert ids(client) == {"new"}


def test_one_that_is_gone_or_fails_is_counted_and_holds_up_no_other(client: Client) -> None:
    make(client, "a", "b", "c", "d")
    listed = sorted(client.sessions(), key=lambda info: info.session)
    client.reset("a", listed[0].position.generation)
    client.delete("b", listed[1].position.generation)
    listed[2] = replace(listed[2], position=Position(b"", 0, b""))  # as if the record were damaged, which it is not
    done = client.delete_many(listed)
    assert (done.deleted, done.gone, done.failed, done.total) == (1, 2, 1, 4)
    assert isinstance(done.failures["c"], InvalidArgument)
    assert ids(client) == {"a", "c"}


def test_what_is_no_listed_session_is_refused(client: Client) -> None:
    make(client, "a")
    for wrong in ("a", ["a"], 5, None):
        with pytest.raises(InvalidArgument, match="sessions: got") as raised:
            client.delete_many(wrong)  # type: ignore[arg-type]
        assert raised.value.field == "sessions"
    assert ids(client) == {"a"}
    assert client.delete_many([]) == Deleted()


async def test_asyncio_takes_both_kinds_of_iterables(client: Client, real_target: str) -> None:
    make(client, "old/a", "old/b", "new")
    async with AsyncClient(real_target) as other:
        seen: list[int] = []
        done = await other.delete_many(other.sessions("old/"), on_progress=lambda so_far: seen.append(so_far.total))
        assert (done, seen) == (Deleted(2), [2])
        assert await other.delete_many([info async for info in other.sessions()]) == Deleted(1)
        with pytest.raises(InvalidArgument, match="sessions: got str"):
            await other.delete_many("old/a")  # type: ignore[arg-type]


class SmallServer(CountingServer):
    """Takes three items in a request. Refuses those of a session with the refusals that are left for it.

    requests: the sessions of each.
    """

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[list[str]] = []
        self.left: dict[str, list[Refused]] = {}

    def _model(self, *fingerprint: bytes) -> Any:
        model = super()._model(*fingerprint)
        model.max_frame_items = 3
        return model

    async def Delete(self, request: Any, context: Any) -> Any:
        self.requests.append([item.session for item in request.items])
        answer = await super().Delete(request, context)
        for item, result in zip(request.items, answer.results, strict=True):
            if self.left.get(item.session):
                result.CopyFrom(pb.SessionResult(error=self.left[item.session].pop(0).wire()))
        return answer


async def test_what_a_server_cannot_delete_now_is_sent_again_alone_and_no_request_is_too_large_for_it() -> None:
    server = SmallServer()
    async with AsyncClient(await server.start(), backoff=QUICK) as client:
        for name in "abcd":
            await client.session(name)
        server.left = {"b": [Refused("QUEUE_FULL"), Refused("STORE_UNAVAILABLE")], "c": [Refused("INTERNAL_ERROR")]}
        done = await client.delete_many([info async for info in client.sessions()])
    await server.stop()
    assert server.requests == [["a", "b", "c"], ["b"], ["b"], ["d"]]
    assert (done.total, done.failed, list(done.failures)) == (4, 1, ["c"])


# ---------------------------------------------------------------------------------------------- the program


def command(target: str, *words: str) -> list[str]:
    return ["sessions", "delete", "--endpoint", target, *words]


def test_the_program_asks_at_a_terminal_and_shows_how_far_it_is(client: Client, real_target: str) -> None:
    make(client, "old/a", "old/b", "old/c", "old/d", "new")
    code, out, shown = at_a_terminal(command(real_target, "--prefix", "old/"), "n\n")
    assert (code, out) == (1, "")
    assert "Delete 4 sessions whose ids start with 'old/' (" in shown
    assert "nothing was deleted" in shown
    assert len(ids(client)) == 5
    code, out, shown = at_a_terminal(command(real_target, "--prefix", "old/"), "y\n")
    assert (code, out.split()) == (0, ["deleted", "4", "gone", "0", "failed", "0"])
    assert "4 sessions, " in shown
    assert ids(client) == {"new"}


def test_without_a_terminal_it_wants_yes(client: Client, real_target: str) -> None:
    make(client, "old/a", "new")

    def run(*words: str) -> Ended:
        return run_forked("cellkeeper", command(real_target, *words), os.environ, 60, "y\n")

    refused = run("--prefix", "old/")
    assert (refused.status, refused.out) == (1, "")
    assert "--yes is required: there is no terminal to ask on" in refused.err
    assert ids(client) == {"old/a", "new"}
    done = run("--prefix", "old/", "--yes")
    assert (done.status, done.out.split()[:2], done.err) == (0, ["deleted", "1"], "")
    assert ids(client) == {"new"}
    assert run("--prefix", "old/", "--yes").out == "no session id starts with 'old/'\n"
    for wrong in ((), ("new", "--prefix", "old/")):
        assert run(*wrong).status == 2
