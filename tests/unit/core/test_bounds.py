"""The limits on what the core holds."""

from __future__ import annotations

import pytest
from cellkeeper_service.core import context, core
from cellkeeper_service.core.generation_requests import Open, OpenReply, SetState
from cellkeeper_service.core.limits import Limits
from cellkeeper_service.core.requests import Request, StepReply
from cellkeeper_service.domain.store import Commit

from .acts import TICK, at_rest, opened
from .counting_engine import expected
from .world import FOREVER, Reply, World, key, reason


def test_the_queues_are_bounded() -> None:
    world = World(limits=Limits(max_requests=3, max_session_requests=2, **TICK))
    replies = [world.send([1]) for _ in range(3)]
    assert reason(replies[2].result) == "QUEUE_FULL"
    world.send([1], session="t")
    assert reason(world.send([1], session="u").result) == "QUEUE_FULL"
    world.settle()
    assert [reply.outputs for reply in replies[:2]] == [expected([1]), expected([1, 1])[1:]]
    at_rest(world)


def test_of_steps_that_come_together_those_beyond_the_servers_room_are_refused_alone() -> None:
    world = World(limits=Limits(max_requests=2, **TICK))
    replies = world.send_together({name: (2, opened(world, name)) for name in "abc"})
    world.settle()
    assert [reply.outputs for reply in replies[:2]] == [expected([2])] * 2
    assert reason(replies[2].result) == "QUEUE_FULL"
    at_rest(world)


def test_the_bytes_of_unanswered_requests_are_bounded() -> None:
    world = World(limits=Limits(max_request_bytes=3 * (4 + 8), **TICK))
    first, second = world.send([1, 2]), world.send([3, 4], session="t")
    assert reason(second.result) == "QUEUE_FULL"
    world.settle()
    assert first.outputs == expected([1, 2])
    assert isinstance(world.step([3, 4], session="t"), StepReply)
    at_rest(world)


@pytest.mark.parametrize("kind", [Open, SetState])
def test_the_bytes_of_states_that_are_to_be_written_are_bounded(kind: type[Open] | type[SetState]) -> None:
    world = World(limits=Limits(max_request_bytes=2 * 8 - 1, **TICK))
    replies = [Reply(), Reply()]
    for name, reply in zip("ab", replies, strict=True):
        if kind is Open:
            request: Request = Open(key(name), FOREVER, reply, b"o" * 16, None, None, bytes(8))
        else:
            request = SetState(key(name), FOREVER, reply, b"g" * 16, b"o" * 16, 0, bytes(8))
        world.replicas[0].core.submit(request)
    world.settle()
    first, second = (reply.result for reply in replies)
    assert isinstance(first, OpenReply) if kind is Open else reason(first) == "SESSION_NOT_FOUND"
    assert reason(second) == "QUEUE_FULL"
    at_rest(world)


def test_of_steps_that_come_together_those_whose_session_has_no_room_are_refused_alone() -> None:
    world = World(limits=Limits(max_session_requests=1, **TICK))
    places = {name: opened(world, name) for name in "ab"}
    waits = world.send([1], places["a"], session="a", peek=True)  # decided on the record, which has not been read yet
    replies = world.send_together({name: (2, places[name]) for name in "ab"})
    assert reason(replies[0].result) == "QUEUE_FULL"
    world.settle()
    assert waits.outputs == expected([1])
    assert replies[1].outputs == expected([2])
    at_rest(world)


def test_the_bytes_of_steps_that_come_together_are_bounded() -> None:
    world = World(limits=Limits(max_request_bytes=3 * (4 + 8), **TICK))
    places = {name: opened(world, name) for name in "abcd"}
    replies = world.send_together({name: (2, places[name]) for name in "ab"})
    more = world.send_together({name: (2, places[name]) for name in "cd"})
    world.settle()
    assert [reply.outputs for reply in (*replies, more[0])] == [expected([2])] * 3
    assert reason(more[1].result) == "QUEUE_FULL"
    at_rest(world)


def test_a_call_of_the_store_takes_a_bounded_number_of_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis serves nobody else while it runs a script."""
    monkeypatch.setattr(context, "MAX_CALL_ITEMS", 2)
    monkeypatch.setattr(core, "MAX_CALL_ITEMS", 2)
    world = World()
    replies = {name: Reply() for name in "abcde"}
    for name, reply in replies.items():
        world.replicas[0].core.submit(Open(key(name), FOREVER, reply, b"o" * 16, None, None, None))
    one, loads, writes = world.replicas[0].core, list[int](), list[int]()
    while one.wants_load:
        sessions, asked = one.take_loads()
        loads.append(len(asked))
        one.on_loaded(sessions, world.store.load_many(asked))
    while one.wants_commit:
        commits = one.take_commits()
        writes.append(len(commits))
        calls = [commit.call for commit in commits if isinstance(commit.call, Commit)]
        one.on_committed(commits, world.store.commit_many(calls))
    assert (loads, writes) == ([2, 2, 1], [2, 2, 1])
    assert all(isinstance(reply.result, OpenReply) for reply in replies.values())
    at_rest(world)
