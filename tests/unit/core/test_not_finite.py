"""Rows whose output or state is not finite."""

from __future__ import annotations

from cellkeeper_service.domain.position import advance

from .acts import at_rest, opened, stands, until
from .counting_engine import POISON, expected
from .world import World, pack, reason


def test_a_poisoned_step_fails_alone() -> None:
    world = World()
    start = opened(world)
    other = opened(world, "t")
    bad, good = world.send([POISON], start), world.send([1], other, session="t")
    behind = world.send([2], advance(start, pack([POISON]), 4))
    world.settle()
    assert reason(bad.result) == "NON_FINITE_RESULT"
    assert bad.result.position == start
    assert reason(behind.result) == "STEP_GAP"
    assert good.outputs == expected([1])
    assert world.step([1, 2, 3, 4, POISON, 5]).reason.name == "NON_FINITE_RESULT"
    assert world.step([1], start).outputs["prediction"].tolist() == expected([1])
    at_rest(world)


def test_a_poisoned_step_behind_others_fails_alone() -> None:
    world = World()
    replies = [world.send([value]) for value in (1, POISON, 2)]
    world.settle()
    assert reason(replies[1].result) == "NON_FINITE_RESULT"
    assert replies[0].outputs + replies[2].outputs == expected([1, 2])
    at_rest(world)


def test_a_first_step_that_is_poisoned_creates_nothing() -> None:
    world = World()
    assert reason(world.step([POISON])) == "NON_FINITE_RESULT"
    assert stands(world) is None
    at_rest(world)


def test_a_poisoned_step_on_a_stale_cached_state_is_decided_on_the_record() -> None:
    world = World(replicas=2)
    start = opened(world)
    world.step([1], start)
    moved = world.step([2], None, replica=1).position
    result = world.step([POISON], advance(start, pack([1]), 4))
    assert reason(result) == "STEP_CONFLICT"
    assert result.position == moved


def test_an_engine_that_raises_fails_its_requests_and_nothing_else() -> None:
    world = World()
    start = opened(world)
    first = world.send([1], start)
    until(world, "writes")
    middle = advance(start, pack([1]), 4)
    bad, behind = world.send([2], middle), world.send([3], advance(middle, pack([2]), 4))
    one = world.replicas[0]
    one.collect()
    one.core.on_failed(one.batches.pop(0))
    world.settle()
    assert first.outputs == expected([1])
    assert reason(bad.result) == "INTERNAL_ERROR"
    assert reason(behind.result) == "STEP_GAP"
    assert world.step([2], middle).outputs["prediction"].tolist() == expected([1, 2])[1:]
    at_rest(world)


def test_an_engine_that_raises_while_a_log_is_replayed_fails_the_first_who_waits_for_it() -> None:
    world = World(replicas=2, replay=100)
    at = world.step([1, 2], opened(world), acked=0).position
    first, second = (world.send([3], at, replica=1, peek=True) for _ in range(2))
    until(world, "batches", 1)
    one = world.replicas[1]
    one.core.on_failed(one.batches.pop(0))
    world.settle()
    assert reason(first.result) == "INTERNAL_ERROR"
    assert second.outputs == expected([1, 2, 3])[2:]
    at_rest(world)
