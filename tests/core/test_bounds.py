"""What the core holds at the most."""

from __future__ import annotations

from cellkeeper_service.core.limits import Limits
from cellkeeper_service.core.requests import (
    StepReply,
)

from .acts import TICK, at_rest, opened
from .counting_engine import expected
from .world import World, reason


def test_the_queues_are_bounded() -> None:
    world = World(limits=Limits(max_requests=3, max_session_requests=2, tick=TICK))
    replies = [world.send([1]) for _ in range(3)]
    assert reason(replies[2].result) == "QUEUE_FULL"
    world.send([1], session="t")
    assert reason(world.send([1], session="u").result) == "QUEUE_FULL"
    world.settle()
    assert [reply.outputs for reply in replies[:2]] == [expected([1]), expected([1, 1])[1:]]
    at_rest(world)


def test_of_steps_that_come_together_those_beyond_the_servers_room_are_refused_alone() -> None:
    world = World(limits=Limits(max_requests=2, tick=TICK))
    replies = world.send_together({name: (2, opened(world, name)) for name in "abc"})
    world.settle()
    assert [reply.outputs for reply in replies[:2]] == [expected([2])] * 2
    assert reason(replies[2].result) == "QUEUE_FULL"
    at_rest(world)


def test_the_bytes_of_unanswered_requests_are_bounded() -> None:
    world = World(limits=Limits(max_request_bytes=3 * (4 + 8), tick=TICK))
    first, second = world.send([1, 2]), world.send([3, 4], session="t")
    assert reason(second.result) == "QUEUE_FULL"
    world.settle()
    assert first.outputs == expected([1, 2])
    assert isinstance(world.step([3, 4], session="t"), StepReply)
    at_rest(world)


def test_of_steps_that_come_together_those_whose_session_has_no_room_are_refused_alone() -> None:
    world = World(limits=Limits(max_session_requests=1, tick=TICK))
    places = {name: opened(world, name) for name in "ab"}
    waits = world.send([1], places["a"], session="a", peek=True)  # is decided on the record, which is not read yet
    replies = world.send_together({name: (2, places[name]) for name in "ab"})
    assert reason(replies[0].result) == "QUEUE_FULL"
    world.settle()
    assert waits.outputs == expected([1])
    assert replies[1].outputs == expected([2])
    at_rest(world)


def test_the_bytes_of_steps_that_come_together_are_bounded() -> None:
    world = World(limits=Limits(max_request_bytes=3 * (4 + 8), tick=TICK))
    places = {name: opened(world, name) for name in "abcd"}
    replies = world.send_together({name: (2, places[name]) for name in "ab"})
    more = world.send_together({name: (2, places[name]) for name in "cd"})
    world.settle()
    assert [reply.outputs for reply in (*replies, more[0])] == [expected([2])] * 3
    assert reason(more[1].result) == "QUEUE_FULL"
    at_rest(world)
