"""Chunks of sequences whose commit got no answer."""

from __future__ import annotations

import pytest
from cellkeeper_service.core.limits import Limits
from cellkeeper_service.core.sequence import Sequenced
from cellkeeper_service.domain.record import Header, Record
from cellkeeper_service.domain.store import Load

from .acts import TICK, until
from .counting_engine import expected
from .world import World, key, reason

START, OTHER_START = b"start of a seq  ", b"another's start "
ANYWHERE = Sequenced()


def header(world: World) -> Header:
    (found,) = world.store.load_many([Load(key(), False)])
    assert isinstance(found, Record)
    return found.header


def settle(world: World, replica: int) -> None:
    while world.replicas[replica].work():
        pass


def in_one_commit(world: World, chunks: int) -> None:
    """Runs the first replica until a commit of this many chunks is under way."""
    one = world.replicas[0]
    one.collect()
    if one.loads:
        one.load(0)
    while batches := one.batches or one.core.schedule():
        one.batches = batches
        one.compute(0)
    one.collect()
    assert [len(commit.requests) for commit in one.writes[0].commits] == [chunks]


@pytest.mark.parametrize("executed", [True, False])
@pytest.mark.parametrize("sequence", [Sequenced(OTHER_START, 0), Sequenced(at=2)])
def test_a_numbered_chunk_whose_commit_was_not_answered_is_decided_again(sequence: Sequenced, executed: bool) -> None:
    world = World()
    world.step([1, 2], sequence=Sequenced(START))
    reply = world.send([5], sequence=sequence)
    until(world, "writes")
    one = world.replicas[0]
    if executed:
        one.reach_store(one.writes[0])
    one.lose(0)
    world.settle()
    assert reply.outputs == (expected([5]) if sequence.origin else expected([1, 2, 5])[2:])
    assert reply.result.replayed == executed
    assert header(world).position.step == (1 if sequence.origin else 3)


@pytest.mark.parametrize("executed", [True, False])
@pytest.mark.parametrize("sequence", [Sequenced(START, 0), Sequenced(at=1)])
def test_a_chunk_in_doubt_is_not_decided_again_behind_the_start_of_another(sequence: Sequenced, executed: bool) -> None:
    """Otherwise it would take effect twice."""
    world = World(replicas=2)
    world.step([9], sequence=Sequenced(b"before all this "))
    reply = world.send([1], sequence=sequence)
    until(world, "writes")
    one = world.replicas[0]
    if executed:
        one.reach_store(one.writes[0])
    one.lose(0)
    world.send([5], sequence=Sequenced(OTHER_START), replica=1)
    settle(world, 1)
    before = header(world)
    world.settle()
    assert reason(reply.result) == "OUTCOME_UNKNOWN"
    assert header(world) == before


@pytest.mark.parametrize("executed", ["before", "late", "never"])
def test_what_was_sent_behind_a_start_in_doubt_belongs_to_it(executed: str) -> None:
    world = World(replicas=2)
    world.step([9], sequence=Sequenced(b"before all this "))
    sent = [world.send([n], acked=0, sequence=Sequenced(START if n == 1 else b"", n - 1)) for n in (1, 2, 3)]
    one = world.replicas[0]
    in_one_commit(world, len(sent))
    write = one.lose(0)
    if executed == "before":
        one.reach_store(write)
    one.collect()
    one.load(0)
    if executed == "late":
        one.reach_store(write)
    world.settle()
    assert [reply.outputs for reply in sent] == [[value] for value in expected([1, 2, 3])]
    assert header(world).position.step == 3
    one.check_rest()


@pytest.mark.parametrize("executed", ["late", "never"])
def test_a_chunk_that_may_still_be_applied_with_one_before_it_is_not_told_of_a_gap(executed: str) -> None:
    """Two chunks are in one commit without an answer. The caller of the first leaves, so it is not decided again."""
    world = World()
    world.step([9], sequence=Sequenced(START, 0))
    first, second = (world.send([n], acked=0, sequence=Sequenced(at=n)) for n in (1, 2))
    one = world.replicas[0]
    in_one_commit(world, 2)
    write = one.lose(0)
    assert first.request is not None
    first.request.gone = True
    world.settle()
    assert reason(second.result) == "OUTCOME_UNKNOWN"
    if executed == "late":
        one.reach_store(write)
    assert header(world).position.step == (3 if executed == "late" else 1)
    again = [world.send([n], acked=0, sequence=Sequenced(at=n)) for n in (1, 2)]
    world.settle()
    assert [reply.outputs for reply in again] == [[value] for value in expected([9, 1, 2])[1:]]


def test_what_was_sent_behind_a_start_in_doubt_belongs_to_a_copy_of_it_too() -> None:
    world = World(replicas=2)
    world.step([9], sequence=Sequenced(b"before all this "))
    sent = [world.send([n], acked=0, sequence=Sequenced(START if n == 1 else b"", n - 1)) for n in (1, 2)]
    one = world.replicas[0]
    in_one_commit(world, len(sent))
    one.lose(0)
    for asked in (Sequenced(START, 0), Sequenced(at=1)):
        world.send([2 if asked.at else 1], acked=0, sequence=asked, replica=1)
        settle(world, 1)
    world.settle()
    assert [reply.outputs for reply in sent] == [[value] for value in expected([1, 2])]
    assert header(world).position.step == 2


def test_what_was_sent_behind_a_start_in_doubt_belongs_to_its_second_try() -> None:
    """Even if a copy of it arrives first, at another replica."""
    world = World(replicas=2)
    sent = [world.send([n], acked=0, sequence=Sequenced(START if n == 1 else b"", n - 1)) for n in (1, 2)]
    one = world.replicas[0]
    in_one_commit(world, len(sent))
    one.lose(0)
    until(world, "writes")
    one.reach_store(one.writes[0])
    world.send([2], acked=0, sequence=Sequenced(at=1), replica=1)
    settle(world, 1)
    world.settle()
    assert [reply.outputs for reply in sent] == [[value] for value in expected([1, 2])]


@pytest.mark.parametrize("sequence", [Sequenced(OTHER_START), ANYWHERE])
def test_without_a_number_an_unknown_outcome_is_told(sequence: Sequenced) -> None:
    world = World()
    world.step([1, 2], sequence=Sequenced(START))
    reply = world.send([5], sequence=sequence)
    until(world, "writes")
    world.replicas[0].lose(0)
    world.settle()
    assert reason(reply.result) == "OUTCOME_UNKNOWN"


@pytest.mark.parametrize("lands", ["before", "late"])
def test_that_nothing_is_stored_tells_nothing_of_a_sequence_that_has_ended(lands: str) -> None:
    world = World()
    reply = world.send([1], sequence=Sequenced(START, 0, end_ttl_ms=500))
    until(world, "writes")
    one = world.replicas[0]
    if lands == "before":
        one.reach_store(one.writes[0])
    write = one.lose(0)
    if lands == "late":
        one.collect()
        one.load(0)
        one.reach_store(write)
    world.now += 1
    world.settle()
    assert reason(reply.result) == "OUTCOME_UNKNOWN"
    assert world.store.load_many([Load(key(), False)]) == [None]


def test_that_nothing_is_stored_tells_nothing_either_once_a_second_try_has_ended_the_sequence() -> None:
    world = World()
    start = world.send([1], sequence=Sequenced(START, 0))
    until(world, "writes")
    one = world.replicas[0]
    one.lose(0)
    end = world.send([2], sequence=Sequenced(at=1, end_ttl_ms=500))
    in_one_commit(world, 2)
    one.reach_store(one.writes[0])
    one.lose(0)
    world.now += 1
    world.settle()
    assert reason(start.result) == "OUTCOME_UNKNOWN"
    assert reason(end.result) == "SESSION_NOT_FOUND"
    assert world.store.load_many([Load(key(), False)]) == [None]


def test_a_start_whose_record_was_in_its_own_way_and_is_gone_is_in_doubt() -> None:
    world = World(limits=Limits(default_ttl_ms=500, **TICK))
    reply = world.send([1], sequence=Sequenced(START, 0))
    until(world, "writes")
    one = world.replicas[0]
    write = one.lose(0)
    one.collect()
    one.load(0)
    one.reach_store(write)
    until(world, "writes")
    one.deliver(0)
    world.now += 1
    world.settle()
    assert reason(reply.result) == "OUTCOME_UNKNOWN"
