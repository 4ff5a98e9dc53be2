"""Deadlines that pass, and callers that leave."""

from __future__ import annotations

from cellkeeper_service.core.requests import Step
from cellkeeper_service.domain.position import advance

from .acts import at_rest, opened, standing, until
from .counting_engine import expected
from .world import FOREVER, World, pack, reason


def test_a_deadline_before_compute_drops_the_step() -> None:
    world = World()
    position = opened(world)
    reply = world.send([1], position, deadline=1.0)
    world.now = 1.0
    world.settle()
    assert reason(reply.result) == "DEADLINE_PASSED"
    assert standing(world).position == position
    at_rest(world)


def test_a_deadline_before_commit_drops_the_step_and_what_was_computed_on_it() -> None:
    world = World()
    start = opened(world)
    first = world.send([1], start)
    until(world, "writes")
    middle = advance(start, pack([1]), 4)
    late = world.send([2], middle, deadline=1.0)
    behind = world.send([3], advance(middle, pack([2]), 4))
    one = world.replicas[0]
    for _ in range(2):
        one.collect()
        one.compute(0)
    world.now = 1.0
    world.settle()
    assert first.outputs == expected([1])
    assert reason(late.result) == "DEADLINE_PASSED"
    assert reason(behind.result) == "STEP_GAP"
    assert standing(world).position == middle
    assert world.step([4], middle).outputs["prediction"].tolist() == expected([1, 4])[1:]
    at_rest(world)


def test_what_was_computed_before_a_late_chunk_is_committed() -> None:
    world = World()
    position = opened(world)
    first = world.send([0], position)
    until(world, "writes")
    replies = []
    for value, deadline in ((1, FOREVER), (2, 1.0), (3, FOREVER)):
        replies.append(world.send([value], None, deadline=deadline))
        world.replicas[0].collect()
        world.replicas[0].compute(0)
    world.now = 1.0
    world.settle()
    assert first.outputs + replies[0].outputs + replies[2].outputs == expected([0, 1, 3])
    assert reason(replies[1].result) == "DEADLINE_PASSED"
    at_rest(world)


def test_a_deadline_before_the_first_step_of_a_session_leaves_nothing_of_it() -> None:
    world = World()
    reply, one = world.send([1], deadline=1.0), world.replicas[0]
    one.collect()
    one.load(0)
    assert one.core.has_work
    world.now = 1.0
    world.settle()
    assert reason(reply.result) == "DEADLINE_PASSED"
    assert one.sessions == {}
    at_rest(world)


def test_a_callers_leaving_drops_its_step_alone() -> None:
    world = World()
    position = opened(world)
    gone, stays = world.send([1], None), world.send([2], None)
    assert gone.request is not None
    gone.request.gone = True
    world.settle()
    assert reason(gone.result) == "CALLER_GONE"
    assert stays.outputs == expected([2])
    assert standing(world).position == advance(position, pack([2]), 4)
    at_rest(world)


def test_a_chunk_that_was_started_goes_on_when_its_caller_leaves() -> None:
    """What was computed of it is not computed again for those who send it next."""
    world = World()
    position = opened(world)
    inputs = list(range(9))  # three slices
    reply = world.send(inputs, position)
    until(world, "batches")
    world.replicas[0].compute(0)
    assert isinstance(reply.request, Step)
    assert reply.request.computed == 4
    reply.request.gone = True
    world.settle()
    assert reply.outputs == expected(inputs)
    assert standing(world).position == advance(position, pack(inputs), 4)
    at_rest(world)


def test_an_expired_request_lets_the_next_one_start() -> None:
    world = World()
    position = opened(world)
    first = world.send([1], position)
    until(world, "writes")
    old = world.send([1], position, acked=0, deadline=1.0)  # waits for the commit
    next_one = world.send([2], advance(position, pack([1]), 4))
    world.now = 1.0
    core = world.replicas[0].core
    core.expire()
    assert reason(old.result) == "DEADLINE_PASSED"
    assert core.has_work
    world.settle()
    assert first.outputs + next_one.outputs == expected([1, 2])


def test_nothing_is_read_for_requests_that_have_expired() -> None:
    world = World()
    reply = world.send([1], deadline=1.0)
    world.now = 1.0
    core = world.replicas[0].core
    core.expire()
    assert reason(reply.result) == "DEADLINE_PASSED"
    assert core.take_loads() == ([], [])
    at_rest(world)


def test_a_step_that_comes_while_a_load_is_under_way_that_nobody_waits_for_any_more() -> None:
    """The result of that load would be older than the step."""
    world = World()
    position = world.step([1], opened(world)).position
    late, one = world.send([9], peek=True, deadline=1.0), world.replicas[0]
    one.collect()
    world.now = 1.0
    one.core.expire()
    assert reason(late.result) == "DEADLINE_PASSED"
    reply = world.send([2], position)
    one.collect()
    while one.batches:
        one.compute(0)
    one.load(0)
    world.settle()
    assert reply.outputs == expected([1, 2])[1:]
    at_rest(world)
