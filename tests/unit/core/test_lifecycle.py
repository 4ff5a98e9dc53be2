"""Open, Reset, SetState, Fork, Delete."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from cellkeeper_service.core.generation_requests import Delete, Deleted, Fork, Moved, Open, Reset, SetState
from cellkeeper_service.core.limits import Limits
from cellkeeper_service.core.requests import StepReply
from cellkeeper_service.domain.position import Position, advance
from cellkeeper_service.domain.store import DamagedRecord

from .acts import TICK, at_rest, opened, reset, standing, stands, until
from .counting_engine import expected
from .ledger import copying
from .world import FOREVER, Reply, World, key, pack, reason


def test_a_reset_between_pipelined_steps() -> None:
    world = World()
    start = opened(world)
    before = world.send([1], start)
    answer = Reply()
    world.replicas[0].core.submit(Reset(key(), FOREVER, answer, start.generation, b"r" * 16))
    behind, free = world.send([2], advance(start, pack([1]), 4)), world.send([3])
    world.settle()
    assert before.outputs == expected([1])
    assert reason(behind.result) == "GENERATION_CHANGED"
    assert free.outputs == expected([3])
    assert free.result.position == advance(answer.result.position, pack([3]), 4)


def test_reset_and_set_state_again_with_the_same_id_find_their_own_work() -> None:
    world = World()
    start = opened(world)
    moved = reset(world, start.generation)
    assert reset(world, start.generation) == moved
    assert reason(reset(world, start.generation, b"x" * 16)) == "GENERATION_CHANGED"
    reply, state = Reply(), expected([1, 2])[-1].to_bytes(8, "little")
    set_to = world.ask(SetState(key(), FOREVER, reply, moved.position.generation, b"z" * 16, 2, state), reply)
    assert set_to.position.step == 2
    assert world.step([3], set_to.position).outputs["prediction"].tolist() == expected([1, 2, 3])[2:]


@pytest.mark.parametrize(
    ("origin", "content", "expects"),
    [
        (b"r" * 16, b"", None),
        (b"r" * 16, b"other content", "INVALID_FIELD"),
        (b"x" * 16, b"", "GENERATION_CHANGED"),
    ],
    ids=["its own", "its id for another request", "another"],
)
def test_a_reset_that_is_sent_again_after_its_record_was_damaged(
    origin: bytes, content: bytes, expects: str | None
) -> None:
    world = World()
    start = opened(world)
    moved = reset(world, start.generation)
    world.step([1], moved.position)
    before, one, answer = standing(world).header, world.replicas[0], Reply()
    one.core.submit(Reset(key(), FOREVER, answer, start.generation, origin, content))
    one.collect()
    sessions, _ = one.loads.pop()
    one.core.on_loaded(sessions, [DamagedRecord("cut", before)])
    world.settle()
    assert (answer.result == Moved(before.position)) if expects is None else (reason(answer.result) == expects)
    assert standing(world).header == before
    at_rest(world)


@pytest.mark.parametrize("names_it", [False, True])
def test_a_delete_names_the_generation_of_a_damaged_record_too(names_it: bool) -> None:
    world = World()
    start, one, answer = opened(world), world.replicas[0], Reply()
    before = standing(world).header
    generation = start.generation if names_it else b"x" * 16
    one.core.submit(Delete(key(), FOREVER, answer, generation))
    one.collect()
    sessions, _ = one.loads.pop()
    one.core.on_loaded(sessions, [DamagedRecord("cut", before)])
    world.settle()
    assert answer.result == Deleted(names_it)
    assert (stands(world) is None) == names_it
    at_rest(world)


def test_a_reset_with_an_unknown_outcome_that_lands_late() -> None:
    world = World()
    start = opened(world)
    answer = Reply()
    world.replicas[0].core.submit(Reset(key(), FOREVER, answer, start.generation, b"r" * 16))
    until(world, "writes")
    one = world.replicas[0]
    late = one.lose(0)
    until(world, "writes")  # its second try
    one.reach_store(late)
    world.settle()
    assert standing(world).position == answer.result.position
    assert world.step([1], answer.result.position).outputs["prediction"].tolist() == expected([1])


def fork(world: World, reply: Reply, at: Position | None = None, origin: bytes = b"f" * 16) -> Fork:
    return Fork(key(), FOREVER, reply, key("t"), at, copying(origin))


def test_a_fork_copies_the_point_asked_for() -> None:
    world = World(replay=100)
    start = opened(world)
    middle = world.step([1, 2], start, acked=0).position
    world.step([3], middle, acked=0)
    reply = Reply()
    moved = world.ask(fork(world, reply, middle), reply)
    assert (moved.position.step, moved.position.head) == (2, middle.head)
    assert moved.position.generation != middle.generation
    assert standing(world, "t").log == pack([1, 2])  # and not what the source consumed after that point
    assert world.step([4], moved.position, session="t").outputs["prediction"].tolist() == expected([1, 2, 4])[2:]
    again, other = Reply(), Reply()
    assert isinstance(world.ask(fork(world, again, middle), again), Moved)
    assert reason(world.ask(fork(world, other, middle, b"x" * 16), other)) == "SESSION_EXISTS"
    at_rest(world)


def test_a_fork_retried_after_its_source_is_gone_finds_its_own_work() -> None:
    world = World()
    start = opened(world)
    first, gone, again = Reply(), Reply(), Reply()
    moved = world.ask(fork(world, first), first)
    assert world.ask(Delete(key(), FOREVER, gone, start.generation), gone) == Deleted(True)
    assert world.ask(fork(world, again), again) == moved
    other = Reply()
    assert reason(world.ask(fork(world, other, None, b"x" * 16), other)) == "SESSION_NOT_FOUND"
    at_rest(world)


@pytest.mark.parametrize("lands", [False, True])
def test_a_fork_with_an_unknown_outcome(lands: bool) -> None:
    world = World()
    world.step([1], opened(world))
    reply = Reply()
    one = world.replicas[0]
    one.core.submit(fork(world, reply))
    until(world, "writes")
    late = one.lose(0)
    if lands:
        one.reach_store(late)
    world.settle()
    assert standing(world, "t").position == reply.result.position
    assert world.step([2], None, session="t").outputs["prediction"].tolist() == expected([1, 2])[1:]
    at_rest(world)


def test_a_fork_whose_caller_leaves_while_its_target_is_busy_is_not_carried_out() -> None:
    """As with any request that has not begun. A retry starts afresh."""
    world = World()
    world.step([1], opened(world))
    one = world.replicas[0]
    busy = world.send([7], None, session="t")
    until(world, "writes")  # the copy waits for it
    left, again = Reply(), Reply()
    left.request = fork(world, left)
    one.core.submit(left.request)
    one.collect()
    one.load(0)
    left.request.gone = True
    world.settle()
    assert reason(left.result) == "CALLER_GONE"
    assert busy.outputs == expected([7])
    gone = Reply()
    assert world.ask(Delete(key("t"), FOREVER, gone, standing(world, "t").position.generation), gone) == Deleted(True)
    assert stands(world, "t") is None
    moved = world.ask(fork(world, again), again)
    assert standing(world, "t").position == moved.position
    at_rest(world)


def test_a_fork_whose_caller_leaves_once_its_copy_is_sent_is_found_by_its_retry() -> None:
    world = World()
    world.step([1], opened(world))
    left, again = Reply(), Reply()
    left.request = fork(world, left)
    world.replicas[0].core.submit(left.request)
    until(world, "writes")
    left.request.gone = True
    world.settle()
    assert isinstance(left.result, Moved)
    assert world.ask(fork(world, again), again) == left.result
    at_rest(world)


@pytest.mark.parametrize("lands", [False, True])
def test_a_delete_retried_after_an_unknown_outcome(lands: bool) -> None:
    world = World()
    start = opened(world)
    reply = Reply()
    one = world.replicas[0]
    one.core.submit(Delete(key(), FOREVER, reply, start.generation))
    until(world, "writes")
    late = one.lose(0)
    if lands:
        one.reach_store(late)
    world.settle()
    assert reply.result == Deleted(True)
    assert stands(world) is None
    at_rest(world)


def test_a_late_delete_does_not_touch_the_next_generation() -> None:
    world = World()
    start = opened(world)
    reply = Reply()
    one = world.replicas[0]
    one.core.submit(Delete(key(), FOREVER, reply, start.generation))
    until(world, "writes")
    late = one.lose(0)
    world.settle()
    again = opened(world, origin=b"p" * 16)
    one.reach_store(late)
    assert world.step([1], again).outputs["prediction"].tolist() == expected([1])


def test_a_session_that_expired_is_not_found_though_it_is_cached() -> None:
    world = World(limits=Limits(default_ttl_ms=1000, **TICK))
    position = opened(world)
    position = world.step([1], position).position
    world.now = 0.9
    assert isinstance(world.step([2], position, peek=True), StepReply)  # a use of the session
    world.now = 1.8
    position = world.step([2], position).position
    world.now = 3.0
    assert reason(world.step([3], position)) == "SESSION_NOT_FOUND"
    assert world.step([4]).created
    at_rest(world)


def test_a_delete_of_an_ended_generation_keeps_nothing_alive() -> None:
    world = World(limits=Limits(default_ttl_ms=1000, **TICK))
    position = opened(world)
    world.now = 0.9
    reply = Reply()
    assert world.ask(Delete(key(), FOREVER, reply, b"e" * 16), reply) == Deleted(False)
    world.now = 1.8
    assert reason(world.step([1], position)) == "SESSION_NOT_FOUND"
    at_rest(world)


def open_with_ttl(world: World, ttl_ms: int, replica: int) -> Any:
    reply = Reply()
    return world.ask(Open(key(), FOREVER, reply, b"q" * 16, None, ttl_ms, None), reply, replica)


def test_a_ttl_set_on_another_replica_outlives_a_step_on_a_cached_state() -> None:
    world = World(replicas=2)
    position = world.step([1], opened(world)).position
    open_with_ttl(world, 5000, replica=1)
    world.step([2], position)
    assert standing(world).header.ttl_ms == 5000


def test_a_step_on_a_cached_state_after_a_lost_tail_was_written_again_with_a_checkpoint() -> None:
    """A fail-over loses a commit, and another replica writes the same history again, but with a checkpoint.

    The first replica's cached state is at the same position, and appends to what it takes for the old log.
    """
    world = World(replicas=2, replay=2)
    positions = [opened(world)]
    for value in range(3):
        kept = world.store._kept[key()]
        before, chunks = (kept.header, kept.checkpoint), list(kept.chunks)
        positions.append(world.step([value], positions[-1], acked=0).position)
    lost = world.store._kept[key()]
    (lost.header, lost.checkpoint), lost.chunks = before, chunks
    world.step([2], positions[2], acked=2, replica=1)
    assert standing(world).header.checkpoint_step == 2
    position = world.step([3], positions[3], acked=0).position
    world.replicas.append(World(replicas=1).replicas[0])
    world.replicas[2].world = world
    assert world.step([4], position, acked=0, replica=2).outputs["prediction"].tolist() == expected(range(5))[4:]


def test_outputs_of_a_session_in_order() -> None:
    """Each chunk continues at the position of the one before, whatever the mix of chunks."""
    world = World(slots=2)
    chunks = [[1], [2, 3], [4, 5, 6, 7, 8], [9]]
    replies = [world.send(chunk) for chunk in chunks]
    world.settle()
    flat = [value for chunk in chunks for value in chunk]
    assert [value for reply in replies for value in reply.outputs] == expected(flat)
    for (before, after), chunk in zip(pairwise(replies), chunks[1:], strict=True):
        assert after.result.position == advance(before.result.position, pack(chunk), 4)
    at_rest(world)
