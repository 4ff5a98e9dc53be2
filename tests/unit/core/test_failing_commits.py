"""Commits that conflict, are refused, or get no answer."""

from __future__ import annotations

import pytest
from cellkeeper_service.domain.position import advance
from cellkeeper_service.errors import internal_error

from .acts import at_rest, opened, standing, until
from .counting_engine import expected
from .counts import counted
from .world import World, pack, reason


@pytest.mark.parametrize("lands", ["before", "after", "never"])
def test_an_unknown_outcome_is_decided_again(lands: str) -> None:
    world = World()
    start, counts = opened(world), counted(world)
    reply = world.send([1], start)
    behind = world.send([2], advance(start, pack([1]), 4))
    until(world, "writes")
    one = world.replicas[0]
    if lands == "before":
        one.reach_store(one.writes[0])
    write = one.lose(0)
    one.collect()
    one.load(0)
    if lands == "after":
        one.reach_store(write)
    world.settle()
    assert reply.outputs + behind.outputs == expected([1, 2])
    assert reply.result.replayed == (lands != "never")
    assert counts.outcomes[0] == ("unknown", 1)
    assert standing(world).position.step == 2
    at_rest(world)


def test_an_unknown_outcome_without_a_position_is_not_tried_again() -> None:
    world = World()
    opened(world)
    lost, behind = world.send([1]), world.send([2])
    until(world, "writes")
    world.replicas[0].lose(0)
    world.settle()
    assert reason(lost.result) == "OUTCOME_UNKNOWN"
    assert behind.outputs == expected([2])


def test_a_refused_commit_takes_what_was_computed_on_it_along() -> None:
    world = World()
    start = opened(world)
    reply = world.send([1], start)
    until(world, "writes")
    behind = world.send([2], advance(start, pack([1]), 4))
    free = world.send([3], None)
    one = world.replicas[0]
    for _ in range(2):
        one.collect()
        one.compute(0)
    one.refuse(0)
    world.settle()
    assert reason(reply.result) == "STORE_UNAVAILABLE"
    assert reason(behind.result) == "STEP_GAP"
    assert free.outputs == expected([3])
    assert standing(world).position == advance(start, pack([3]), 4)
    at_rest(world)


def test_a_store_that_cannot_be_read_is_told_to_those_who_asked() -> None:
    world = World()
    reply = world.send([1])
    world.replicas[0].collect()
    late = world.send([2])
    world.replicas[0].load(0, lose=True)
    assert reason(reply.result) == "STORE_UNAVAILABLE"
    world.settle()
    assert late.outputs == expected([2])


def test_a_stale_cached_state_is_found_out_by_its_commit() -> None:
    world = World(replicas=2)
    position = opened(world)
    position = world.step([1], position).position
    world.step([2], position, replica=1)
    result = world.step([3], None)
    assert result.outputs["prediction"].tolist() == expected([1, 2, 3])[2:]
    assert reason(world.step([9], position)) in ("STEP_CONFLICT", "STEP_COMPACTED")


def test_a_session_whose_state_was_dropped_meanwhile_is_forgotten_once_its_commit_is_done() -> None:
    world = World()
    start = opened(world)
    reply = world.send([1], start)
    until(world, "writes")
    behind = world.send([2], advance(start, pack([1]), 4))
    one = world.replicas[0]
    one.collect()
    one.core.on_failed(one.batches.pop(), internal_error())
    assert reason(behind.result) == "INTERNAL_ERROR"
    one.deliver(0)
    assert reply.outputs == expected([1])
    at_rest(world)


def test_a_step_that_lost_the_creation_of_its_session_did_not_create_it() -> None:
    world = World(replicas=2)
    late = world.send([1])
    until(world, "writes")
    first = world.send([2], replica=1)
    while world.replicas[1].work():
        pass
    world.settle()
    assert (first.outputs, late.outputs) == (expected([2]), expected([2, 1])[1:])
    assert (first.result.created, late.result.created) == (True, False)
