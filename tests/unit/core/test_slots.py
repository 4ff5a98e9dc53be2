"""More sessions than slots."""

from __future__ import annotations

import pytest
from cellkeeper_service.core.generation_requests import Open, OpenReply
from cellkeeper_service.core.requests import GetSession, SessionReply, StepReply
from cellkeeper_service.domain.store import Load

from .acts import at_rest, opened, stands, until
from .counting_engine import expected
from .world import FOREVER, Reply, World, key, reason


@pytest.mark.parametrize("slots", [1, 2])
def test_more_sessions_than_slots(slots: int) -> None:
    world = World(slots=slots)
    names = [f"s{index}" for index in range(5)]
    positions = {name: opened(world, name) for name in names}
    for value in range(6):
        replies = {name: world.send([value, value + 1], positions[name], session=name) for name in names}
        world.settle()
        for name, reply in replies.items():
            positions[name] = reply.result.position
            flat = [one for low in range(value + 1) for one in (low, low + 1)]
            assert reply.outputs == expected(flat)[-2:]
    at_rest(world)


def test_the_session_whose_last_step_is_longest_ago_is_evicted() -> None:
    world = World(slots=2)
    positions = {name: world.step([1], session=name).position for name in "ab"}
    world.step([2], positions["a"], session="a")
    world.step([1], session="c")
    cached = {at.session for at, session in world.replicas[0].sessions.items() if session.cached is not None}
    assert cached == {"a", "c"}
    at_rest(world)


def with_a_waiting_session(world: World) -> tuple[Reply, Reply]:
    """Returns the replies to the step that occupies the only slot, and to another session's step that waits for it."""
    positions = [opened(world, name) for name in ("busy", "first")]
    running = world.send([1], positions[0], session="busy")
    until(world, "batches")
    waiting = world.send([1], positions[1], session="first")
    world.replicas[0].collect()
    world.replicas[0].load(0)
    assert len(world.replicas[0].waiting_for_slot) == 1
    return running, waiting


def test_an_open_does_not_wait_for_a_slot() -> None:
    """Its record is written while the only slot is busy. The request after it does not wait for a slot either."""
    world = World(slots=1)
    running, waiting = with_a_waiting_session(world)
    opening, session = Reply(), Reply()
    one = world.replicas[0]
    one.core.submit(Open(key(), FOREVER, opening, b"o" * 16, None, None, None))
    one.collect()
    one.load(0)
    one.collect()
    one.core.submit(GetSession(key(), FOREVER, session))
    one.deliver(0)
    one.collect()
    one.load(0)
    assert isinstance(opening.result, OpenReply)
    assert isinstance(session.result, SessionReply)
    assert len(one.waiting_for_slot) == 1
    world.settle()
    assert running.outputs == waiting.outputs == expected([1])
    at_rest(world)


def test_requests_that_expire_while_their_session_waits_for_a_slot_leave_no_second_session() -> None:
    world = World(slots=1)
    position = opened(world)
    running, waiting = with_a_waiting_session(world)
    one = world.replicas[0]
    expired = world.send([1], position, deadline=1.0)
    one.collect()
    one.load(0)
    assert len(one.waiting_for_slot) == 2
    world.now = 2.0
    one.core.expire()
    assert reason(expired.result) == "DEADLINE_PASSED"
    later = world.send([2], position)
    session = one.sessions[key()]
    for _ in range(3):  # the slot is passed on
        until(world, "batches")
        one.compute(0)
        one.collect()
        one.deliver(0)
        assert one.sessions[key()] is session
    world.settle()
    assert running.outputs == waiting.outputs == expected([1])
    assert later.outputs == expected([2])
    at_rest(world)


def test_waiting_sessions_are_served_in_their_order() -> None:
    world = World(slots=1)
    positions = [opened(world, f"s{index}") for index in range(3)]
    busy = world.send([1], opened(world, "busy"), session="busy")
    until(world, "batches")
    replies = [world.send([1], position, session=f"s{index}") for index, position in enumerate(positions)]
    one = world.replicas[0]
    one.collect()
    one.load(0)
    order = one.waiting_for_slot
    one.compute(0)  # its commit is still to come, so no slot is free yet
    assert one.waiting_for_slot == order == ["s0", "s1", "s2"]
    world.settle()
    assert all(isinstance(reply.result, StepReply) for reply in [busy, *replies])


def test_a_slot_freed_by_a_late_chunk_goes_to_the_session_that_waits_for_it() -> None:
    world = World(slots=1)
    position = opened(world, "other")
    late = world.send([1], opened(world), deadline=1.0)
    one = world.replicas[0]
    until(world, "batches")
    waiting = world.send([2], position, session="other")
    one.collect()
    one.load(0)
    one.compute(0)
    world.now = 2.0
    world.settle()
    assert reason(late.result) == "DEADLINE_PASSED"
    assert waiting.outputs == expected([2])
    at_rest(world)


def test_a_slot_freed_by_a_dead_first_step_goes_to_the_session_that_waits_for_it() -> None:
    world = World(slots=1)
    position = opened(world, "other")
    dead = world.send([1], deadline=1.0)
    one = world.replicas[0]
    one.collect()
    one.load(0)  # it is about to be created, and holds the slot
    waiting = world.send([2], position, session="other")
    one.core.take_loads()
    sessions, loads = [one.sessions[key("other")]], [Load(key("other"), True)]
    one.core.on_loaded(sessions, world.store.load_many(loads))
    world.now = 2.0
    assert one.core.schedule() == []
    assert one.core.has_work  # the other session has the slot now
    world.settle()
    assert reason(dead.result) == "DEADLINE_PASSED"
    assert stands(world) is None
    assert waiting.outputs == expected([2])
    at_rest(world)
