"""What happens to a step, depending on its position and the session's; and reads."""

from __future__ import annotations

import pytest
from cellkeeper_service.core.generation_requests import Moved
from cellkeeper_service.core.requests import GetSession, GetState, SessionReply, StateReply, StepReply
from cellkeeper_service.domain.meter import EvictionReason, Meter
from cellkeeper_service.domain.position import Position, advance, first_position

from .acts import at_rest, opened, reset, standing, stands, until
from .counting_engine import expected
from .world import FOREVER, Reply, World, key, pack, reason


def test_positioned_without_a_record_is_not_found_and_creates_nothing() -> None:
    world = World()
    assert reason(world.step([1], first_position(b"g" * 16))) == "SESSION_NOT_FOUND"
    assert stands(world) is None
    at_rest(world)


def test_unpositioned_without_a_record_creates() -> None:
    world = World()
    first, second = world.send([5, 6]), world.send([7])
    world.settle()
    assert (first.result.created, second.result.created) == (True, False)
    assert first.outputs + second.outputs == expected([5, 6, 7])
    assert second.result.position == advance(first.result.position, pack([7]), 4)
    assert standing(world).position == second.result.position


def test_the_first_step_of_a_session_that_another_request_has_made_does_not_create_it() -> None:
    world = World()
    first = world.step([1], opened(world))
    again = world.step([1], reset(world, first.position.generation).position)
    assert (first.created, again.created) == (False, False)


def test_another_generation_is_refused() -> None:
    world = World()
    opened(world)
    assert reason(world.step([1], first_position(b"g" * 16))) == "GENERATION_CHANGED"


def test_the_record_picks_its_version_and_one_that_is_not_served_is_refused() -> None:
    old = World(versions=[b"\1"])
    position = opened(old)
    both, new = World(versions=[b"\2", b"\1"]), World(versions=[b"\2"])
    both.store = new.store = old.store
    reply = both.step([4], position)
    assert reply.served.spec.fingerprint == b"\1" * 32
    assert both.step([5]).outputs["prediction"].tolist() == expected([4, 5])[1:]
    assert reason(new.step([6])) == "MODEL_CHANGED"
    moved = reset(both, position.generation)
    assert isinstance(moved, Moved)
    assert both.step([7], moved.position).served.spec.fingerprint == b"\2" * 32
    at_rest(both)


def test_a_step_beyond_the_record_is_a_gap_and_tells_where_it_stands() -> None:
    world = World()
    position = opened(world)
    result = world.step([2], advance(position, pack([1]), 4))
    assert reason(result) == "STEP_GAP"
    assert result.position == position


def test_a_step_before_the_checkpoint_is_compacted() -> None:
    world = World(replay=2)
    start = position = opened(world)
    for value in range(8):
        position = world.step([value], position).position
    assert standing(world).header.checkpoint_step > 0
    result = world.step([0], start)
    assert reason(result) == "STEP_COMPACTED"
    assert result.position == position


def test_another_head_is_another_history() -> None:
    world = World()
    start = opened(world)
    after = world.step([1, 2], start).position
    assert reason(world.step([3], after.changed(head=b"x" * 8))) == "HISTORY_CHANGED"
    assert reason(world.step([3], Position(start.generation, 1, b"x" * 8))) == "HISTORY_CHANGED"


def test_a_duplicate_gets_its_outputs_again_whatever_the_chunk_boundaries() -> None:
    world = World(replay=100)
    start = opened(world)
    middle = world.step([1, 2, 3], start, acked=0).position
    world.step([4, 5], middle, acked=0)
    for chunk, position in (([1, 2, 3], start), ([4, 5], middle), ([1, 2, 3, 4], start)):
        reply = world.send(chunk, position, acked=0)
        world.settle()
        assert reply.result.replayed
        low = position.step
        assert reply.outputs == expected([1, 2, 3, 4, 5])[low : low + len(chunk)]
        assert reply.result.position == advance(position, pack(chunk), 4)
    assert standing(world).position.step == 5


def test_other_inputs_at_an_old_step_are_a_conflict() -> None:
    world = World(replay=100)
    start = opened(world)
    world.step([1, 2], start, acked=0)
    assert reason(world.step([9], start, acked=0)) == "STEP_CONFLICT"
    for chunk, says in (([1, 2, 3], "has these inputs up to step 2 already"), ([1, 9, 3], "other inputs were applied")):
        refused = world.step(chunk, start, acked=0)
        assert reason(refused) == "STEP_CONFLICT"
        assert says in refused.message


def test_a_duplicate_that_came_after_the_reading_is_decided_on_another_one() -> None:
    """It may have been sent after a reset of which that reading does not know."""
    world = World(replicas=2)
    start = opened(world)
    world.step([1], start)
    first, one = world.send([1], start, replica=1), world.replicas[1]
    one.collect()
    sessions, loads = one.loads.pop()
    results = world.store.load_many(loads)
    reset(world, start.generation)
    second = world.send([1], start, replica=1)
    one.core.on_loaded(sessions, results)
    world.settle()
    assert first.outputs == expected([1])
    assert reason(second.result) == "GENERATION_CHANGED"
    at_rest(world)


def test_a_duplicate_waits_for_its_own_pending_commit() -> None:
    world = World()
    start = opened(world)
    first = world.send([1], start)
    until(world, "writes")
    again = world.send([1], start, acked=0)
    world.replicas[0].collect()
    assert not isinstance(again.result, StepReply)
    assert not world.replicas[0].loads
    world.settle()
    assert (first.result.replayed, again.result.replayed) == (False, True)
    assert again.outputs == first.outputs


def test_a_reply_does_not_leave_before_its_commit() -> None:
    world = World()
    reply = world.send([1], opened(world))
    until(world, "writes")
    world.replicas[0].reach_store(world.replicas[0].writes[0])
    assert reply.result is None
    world.replicas[0].deliver(0)
    assert reply.outputs == expected([1])


def test_the_state_comes_at_replay_only_to_those_who_want_it() -> None:
    world = World(replay=100)
    start = opened(world)
    first = world.step([1, 2, 3], start, acked=0, wants_state=True)
    second = world.step([4, 5], first.position, acked=0, wants_state=True)
    with_state = world.send([1, 2, 3], start, acked=0, wants_state=True)
    without = world.send([4, 5], first.position, acked=0)
    world.settle()
    assert with_state.result.replayed
    assert without.result.replayed
    assert with_state.result.state == first.state == expected([1, 2, 3])[-1].to_bytes(8, "little")
    assert without.result.state is None
    assert second.state == expected([1, 2, 3, 4, 5])[-1].to_bytes(8, "little")


def test_a_peek_computes_and_commits_nothing() -> None:
    world = World()
    assert reason(world.step([1], peek=True)) == "SESSION_NOT_FOUND"
    position = world.step([1], opened(world)).position
    for where in (None, position):
        reply = world.send([2, 3], where, peek=True)
        world.settle()
        assert reply.outputs == expected([1, 2, 3])[1:]
        assert reply.result.position == advance(position, pack([2, 3]), 4)
    assert standing(world).position == position
    assert world.step([2], position).outputs["prediction"].tolist() == expected([1, 2])[1:]
    at_rest(world)


def test_a_read_comes_after_the_steps_before_it() -> None:
    world = World()
    position = opened(world)
    world.send([1], position)
    state, session = Reply(), Reply()
    core = world.replicas[0].core
    core.submit(GetState(key(), FOREVER, state))
    core.submit(GetSession(key(), FOREVER, session))
    world.settle()
    assert isinstance(state.result, StateReply)
    assert state.result.state == expected([1])[-1].to_bytes(8, "little")
    assert isinstance(session.result, SessionReply)
    assert session.result.header.position == state.result.position == advance(position, pack([1]), 4)


def test_a_cached_state_that_a_reading_refutes_is_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[tuple[str, str]] = []

    class Counting(Meter):
        def evicted(self, model: str, reason: EvictionReason) -> None:
            counted.append((model, reason))

    world = World(replicas=2)
    at = world.step([1], opened(world)).position
    world.step([2], at, replica=1)
    monkeypatch.setattr(world.replicas[0].core.context, "meter", Counting())
    reply = Reply()
    found = world.ask(GetSession(key(), FOREVER, reply), reply)
    assert (found.header.position.step, found.hot) == (2, False)
    assert counted == [("m", "stale")]
    at_rest(world)
